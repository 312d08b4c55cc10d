"""Bounds how long a flow lives, and keeps some out."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import open_hook as hook
from wit_world.imports import config, log, types

DEFAULTS = {"max_seconds": 3600, "blocked": []}


def settings(text):
    """What the operator configures; raises what the hub is told."""
    given = json.loads(text)
    for key in given:
        if key not in DEFAULTS:
            raise bad_config(f"`{key}` is not known; known are {', '.join(DEFAULTS)}")
    merged = {**DEFAULTS, **given}
    seconds = merged["max_seconds"]
    if not isinstance(seconds, int) or not 1 <= seconds <= 604800:
        raise bad_config(f"`max_seconds` is {seconds}, it must be 1 to 604800")
    if not isinstance(merged["blocked"], list):
        raise bad_config("`blocked` must be a list of subjects")
    return merged


def bad_config(detail):
    return Err(types.Error("bad_config", detail))


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return exports.lifecycle.About(
            name="{{name}}",
            version="0.1.0",
            summary="bounds how long a flow lives, and keeps some out",
        )

    def check_config(self, json):
        settings(json)


class OpenHook(exports.OpenHook):
    def on_open(self, c, o, carry):
        configured = settings(config.json())
        subject = o.viewer.subject
        if subject in configured["blocked"]:
            log.write(log.Level.INFO, "a blocked subject asked for a flow", [("subject", subject)])
            return hook.Verdict_Deny(
                types.Denial("blocked", "not allowed", f"`{subject}` asked for `{o.connector}`")
            )
        return hook.Verdict_Allow(
            hook.Grant(
                max_bytes=None,
                max_seconds=configured["max_seconds"],
                idle_seconds=None,
                attributes=[],
                carry=[],
            )
        )
