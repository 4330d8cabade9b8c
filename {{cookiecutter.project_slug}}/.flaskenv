# Public settings of the flask command. No secret here: git tracks this file.
FLASK_APP={{cookiecutter.package_name}}.app
