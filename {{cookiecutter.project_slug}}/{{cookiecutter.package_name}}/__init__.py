"""The app: see app.py. Importing this package imports no Flask."""
