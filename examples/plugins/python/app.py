"""Names networks that the operator knows something about: signals such as `watch-list/tor-exit`."""

import ipaddress
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import enrich_hook as hook
from wit_world.imports import config, types


def networks(text):
    """Signals by network, the most specific network first."""
    given = json.loads(text)
    for key in given:
        if key != "networks":
            raise bad_config(f"`{key}` is not known; known is networks")
    try:
        listed = {
            ipaddress.ip_network(network): signal
            for network, signal in given.get("networks", {}).items()
        }
    except (AttributeError, ValueError) as error:
        raise bad_config(f"`networks`: {error}")
    return sorted(listed.items(), key=lambda item: -item[0].prefixlen)


def bad_config(detail):
    return Err(types.Error("bad_config", detail))


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return exports.lifecycle.About("watch-list", "0.1.0", "names networks that are known")

    def check_config(self, json):
        networks(json)


class EnrichHook(exports.EnrichHook):
    def signals(self, c, a):
        try:
            address = ipaddress.ip_address(a.peer.ip)
        except ValueError:
            return hook.Findings(signals=[], carry=[])
        found = (signal for network, signal in networks(config.json()) if address in network)
        signal = next(found, None)
        return hook.Findings(signals=[signal] if signal else [], carry=[])
