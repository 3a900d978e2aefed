"""The base of all sections of a configuration."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class of the sections of a configuration, the mappings of its file: objects cannot be
    changed, and a key that is not known is an error.

    A validator of a whole section raises ValueError with a text that is shown to people as it is.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
