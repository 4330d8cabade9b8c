"""What the project is called, for its pages."""

NAME = "{{ cookiecutter.__quoted_name }}"
DESCRIPTION = "{{ cookiecutter.__quoted_description }}"
