"""Structured answers: the form that an answer must have, and whether one has it.

Where an engine can be held to a form it is; an answer is looked at in any case, because a server may ignore what it
was asked.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator


class Structured(BaseModel):
    """A JSON schema, a regular expression for the whole answer, or a list of answers to choose from: one of them.

    A sampled answer that has not the form is asked for again, with another seed, up to `attempts` times in all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = Field(default=None, min_length=1)
    attempts: PositiveInt = 4

    @model_validator(mode="after")
    def _one(self) -> Structured:
        if sum(value is not None for value in (self.json_schema, self.regex, self.choice)) != 1:
            raise ValueError("takes one of json_schema, regex and choice")
        return self

    @field_validator("json_schema")
    @classmethod
    def _a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            try:
                jsonschema.validators.validator_for(schema).check_schema(schema)
            except jsonschema.SchemaError as error:
                raise ValueError(f"is no JSON schema: {error.message}") from error
        return schema

    @field_validator("regex")
    @classmethod
    def _a_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
        return pattern

    def fault(self, content: str) -> str | None:
        """Why an answer has not the form, in one line; None if it has."""
        if self.choice is not None:
            return None if content in self.choice else f"it is none of {', '.join(self.choice)}"
        if self.regex is not None:
            return None if re.fullmatch(self.regex, content) else f"it does not match {self.regex}"
        try:
            jsonschema.validate(json.loads(content), self.json_schema)
        except json.JSONDecodeError as error:
            return f"it is no JSON: {error}"
        except jsonschema.ValidationError as error:
            return f"it does not keep to the schema at {error.json_path}: {error.message[:200]}"
        return None
