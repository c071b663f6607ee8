"""How well embeddings separate the classes: two numbers, and a map in the plane. Needs scikit-learn."""
import numpy as np
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier


def silhouette(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette, -1 to 1: how much closer a sample is to its own class than to the nearest other one."""
    return float(silhouette_score(embeddings, labels))


def knn_accuracy(embeddings: np.ndarray, labels: np.ndarray, neighbors: int) -> float:
    """Percent of the samples that the majority of their nearest others, themselves left out, puts into the right class."""
    classifier = KNeighborsClassifier(neighbors).fit(embeddings, labels)
    return 100 * float((classifier.predict(None) == labels).mean())


def tsne(embeddings: np.ndarray, seed: int, perplexity: float) -> np.ndarray:
    """Points (N, 2) in the plane by t-SNE, which starts at the principal components; the same for the same ``seed`` and
    machine.
    """
    return TSNE(perplexity=perplexity, init='pca', random_state=seed).fit_transform(embeddings)
