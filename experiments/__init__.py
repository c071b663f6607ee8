"""The paper's tables and figures, and studies of single settings: ``python -m experiments --help``."""
