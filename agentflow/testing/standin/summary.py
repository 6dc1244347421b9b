"""Plain chat without tools: the most central sentences of what was given, nothing made up."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agentflow.testing.chat import ChatCall
from agentflow.testing.standin.words import STOPWORDS, stem, words

_SENTENCE = re.compile(r"[^\s.!?][^.!?\n]*(?:[.!?](?!\s|$)[^.!?\n]*)*[.!?]?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MOST = 3


def summary(call: ChatCall) -> str:
    """The central sentences of the user's text; as JSON when a schema asks for it."""
    said = call.said_by("user")
    schema = ((call.body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    if schema is None:
        return " ".join(central_sentences(said, _MOST)) or said
    return json.dumps(filled(schema, said, schema.get("$defs", {})))


def central_sentences(text: str, most: int) -> list[str]:
    """The sentences whose words occur most in the text, in the text's order."""
    sentences = [match.strip() for match in _SENTENCE.findall(text)]
    counts = Counter(_roots(text))
    weights = {
        s: sum(counts[root] for root in set(_roots(s))) / (4 + len(_roots(s))) for s in sentences
    }
    best = sorted(weights, key=lambda s: -weights[s])[:most]
    return [s for s in weights if s in best]


def filled(schema: Mapping[str, Any], text: str, definitions: Mapping[str, Any]) -> Any:
    """A value of that JSON schema, its strings and numbers taken from the text."""
    if "$ref" in schema:
        return filled(definitions[schema["$ref"].rpartition("/")[2]], text, definitions)
    if "enum" in schema or "const" in schema:
        return _option(schema.get("enum") or [schema["const"]], text)
    if "anyOf" in schema:
        return filled(schema["anyOf"][0], text, definitions)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: filled(part, text, definitions) for name, part in properties.items()}
        case "array":
            items = schema.get("items", {})
            return [filled(items, s, definitions) for s in central_sentences(text, _MOST)]
        case "integer" | "number" as kind:
            found = _NUMBER.search(text)
            number = float(found[0]) if found else 0.0
            return int(number) if kind == "integer" else number
        case "boolean":
            return not re.search(r"\b(?:no|not|never|none)\b", text.lower())
        case "null":
            return None
        case _:
            return " ".join(central_sentences(text, 1))


def _option(options: list[Any], text: str) -> Any:
    """The option that the text names, else the first."""
    return next((o for o in options if str(o).lower() in text.lower()), options[0])


def _roots(text: str) -> list[str]:
    return [stem(word) for word in words(text) if word not in STOPWORDS]
