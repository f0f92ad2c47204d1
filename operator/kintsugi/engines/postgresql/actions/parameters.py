"""How parameters become a checked model: strict, complete, and with an error that names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kintsugi.engines.engine import BadParametersError

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], parameters: Mapping[str, Any], action: str) -> M:
    """`parameters` as `model`; nothing is converted, so that the same JSON always gives the same plan.

    Raises:
        BadParametersError: a parameter is missing, unknown or malformed.
    """
    try:
        return model.model_validate_json(json.dumps(dict(parameters)), strict=True)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'parameters'}: {e['msg']}" for e in error.errors())
        raise BadParametersError(
            f"{action} can't use these parameters ({problems}); take them from a proposal"
        ) from None
    except TypeError as error:
        raise BadParametersError(f"{action} can't use these parameters ({error}); give plain JSON values") from None
