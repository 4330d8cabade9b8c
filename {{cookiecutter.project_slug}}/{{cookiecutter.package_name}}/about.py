"""What the project is called, for its pages."""

NAME = "{{ cookiecutter.__quoted_name }}"  # fmt: skip
DESCRIPTION = "{{ cookiecutter.__quoted_description }}"  # fmt: skip
