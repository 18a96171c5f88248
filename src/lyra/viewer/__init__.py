"""A scene in a browser: the page, the live viewer, and the check of the one against our renderer."""
