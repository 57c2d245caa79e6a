"""pydantic refuses a model of SkyRL 0.3.0 on Python 3.11 (a typing.TypedDict): here it finds the one it accepts."""

import sys
import typing

import typing_extensions

if sys.version_info < (3, 12):
    typing.TypedDict = typing_extensions.TypedDict
