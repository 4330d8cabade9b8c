"""Error pages: one readable page for each, that tells a visitor what to do and nothing else."""

from http import HTTPStatus

from flask import Flask, render_template
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from . import logs

ADVICE = {
    400: "The request could not be understood. Go back, reload the page and try again.",
    403: "You may not see this page.",
    404: "There is no page at this address. It may have moved; check the spelling.",
    405: "This address does not take that kind of request.",
    413: "What you sent is too large.",
    500: "Something went wrong on our side. It has been noted; try again in a moment.",
    503: "The site cannot read your session just now. It is not lost; try again in a moment.",
}
FORM_EXPIRED = "This form is no longer valid. Go back, reload the page and send it again."


def init_app(app: Flask) -> None:
    """Show an error page of our own for every HTTP error."""
    app.register_error_handler(HTTPException, _page)


def _page(error: HTTPException) -> Response:
    response = error.get_response()
    # A redirect, or an exception that carries its own response, is an answer already.
    if error.response is None and response.status_code >= HTTPStatus.BAD_REQUEST:
        csrf = isinstance(error, CSRFError)
        advice = FORM_EXPIRED if csrf else ADVICE.get(response.status_code, "Go back and try again.")
        page = render_template("error.html", error=error, advice=advice, request_id=logs.request_id())
        response.data = page
        response.content_type = "text/html; charset=utf-8"
    return response
