"""The site: `make docs` builds it into docs/_build/html, and any warning fails it."""
import os
import runpy
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[1]

project = 'mmcrrcd'
author = 'mmcrrcd contributors'
copyright = author
release = runpy.run_path(str(ROOT / 'mmcrrcd' / 'version.py'))['__version__']

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode',
              'sphinx_copybutton']
templates_path = ['_templates']
exclude_patterns = ['_build']
suppress_warnings = ['myst.header']                      # a page that is included in another begins where that one wants
myst_heading_anchors = 4
myst_links_external_new_tab = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
copybutton_exclude = '.linenos, .gp'

html_theme = 'pydata_sphinx_theme'
html_title = f'mmcrrcd {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
html_sidebars = {'**': ['pages']}
html_theme_options = dict(navbar_center=[], navbar_align='left', secondary_sidebar_items=['page-toc'], show_toc_level=2,
                          footer_start=['copyright'], footer_end=['sphinx-version'], pygments_light_style='tango')


SHOWN = {'README.md': 'index', 'CHANGELOG.md': 'changelog', 'CONTRIBUTING.md': 'contributing',
         'configs/face/README.md': 'face_data'}          # files outside docs/ that a page of the site includes
FOLDERS = {docname: (ROOT / name).parent for name, docname in SHOWN.items()}     # where links of these begin


def outside(app, doctree) -> None:
    """Links to files and folders of the repository that are no pages: kept aside until all pages are read."""
    folder = FOLDERS.get(app.env.docname, Path(app.srcdir, app.env.docname).parent)
    for node in list(doctree.findall(addnodes.pending_xref)):
        path = Path(os.path.normpath(folder / node['reftarget'].split('#')[0]))
        path = path if path.exists() else path.with_suffix('.md')
        page = node['reftarget'].split('#')[0].removesuffix('.md') in app.env.found_docs         # `data` is a folder, too
        if node['reftype'] in ('myst', 'doc') and path.exists() and Path(app.srcdir) not in path.parents and not page:
            node.replace_self(addnodes.download_reference('', '', *node.children, reftarget=str(path)))


def link_sources(app, doctree, docname: str) -> None:
    """Files of the repository: a page that shows it, the source of a module beside the API, or no link at all."""
    for node in list(doctree.findall(addnodes.download_reference)):
        path = Path(os.path.normpath(Path(app.srcdir, docname).parent / node['reftarget']))
        name, content = path.relative_to(ROOT).as_posix(), nodes.inline('', '', *node.children)
        module = name.removesuffix('.py').removesuffix('/__init__')
        page = SHOWN.get(name)
        if name.endswith('.py') and module.replace('/', '.') in app.env._viewcode_modules:
            page = f'_modules/{module}'
        uri = page and app.builder.get_relative_uri(docname, page)
        node.replace_self(nodes.reference('', '', content, internal=True, refuri=uri) if page else content)


def by_its_name(app, env, node, contnode) -> nodes.reference | None:
    """A docstring names a class without its module; that is enough where only one object has this name."""
    if node.get('refdomain') != 'py':
        return None
    objects = env.domains['py'].objects
    found = [each for name, each in objects.items() if name.endswith('.' + node['reftarget']) and not each.aliased]
    if len(found) != 1:
        return None
    uri = app.builder.get_relative_uri(node['refdoc'], found[0].docname) + f'#{found[0].node_id}'
    return nodes.reference('', '', contnode, internal=True, refuri=uri)


def setup(app) -> None:
    app.connect('doctree-read', outside, priority=900)   # after Sphinx has collected what is to be downloaded
    app.connect('doctree-resolved', link_sources)
    app.connect('missing-reference', by_its_name)
