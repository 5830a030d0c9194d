"""Bundle -> a static site that chats in the browser, with the model inside."""

from issun.web.errors import WebError
from issun.web.writing import Site, write_site

__all__ = ["Site", "WebError", "write_site"]
