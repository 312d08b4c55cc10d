// Bounds how long a flow lives, and keeps some out.

import { json } from "nowconnect:plugin/config@0.2.0";
import { write } from "nowconnect:plugin/log@0.2.0";

const DEFAULTS = { max_seconds: 3600, blocked: [] };

// What the operator configures; throws what the hub is told.
function settings(text) {
  const given = JSON.parse(text);
  for (const key of Object.keys(given)) {
    if (!(key in DEFAULTS)) {
      throw badConfig(`\`${key}\` is not known; known are ${Object.keys(DEFAULTS).join(", ")}`);
    }
  }
  const all = { ...DEFAULTS, ...given };
  if (!Number.isInteger(all.max_seconds) || all.max_seconds < 1 || all.max_seconds > 604800) {
    throw badConfig(`\`max_seconds\` is ${all.max_seconds}, it must be 1 to 604800`);
  }
  if (!Array.isArray(all.blocked)) {
    throw badConfig("`blocked` must be a list of subjects");
  }
  return all;
}

function badConfig(detail) {
  return { code: "bad_config", detail };
}

export const lifecycle = {
  describe() {
    return {
      name: "{{name}}",
      version: "0.1.0",
      summary: "bounds how long a flow lives, and keeps some out",
    };
  },

  checkConfig(text) {
    settings(text);
  },
};

export const openHook = {
  onOpen(call, open, carry) {
    const { max_seconds, blocked } = settings(json());
    const subject = open.viewer.subject;
    if (blocked.includes(subject)) {
      write("info", "a blocked subject asked for a flow", [["subject", subject]]);
      return {
        tag: "deny",
        val: {
          code: "blocked",
          public: "not allowed",
          private: `\`${subject}\` asked for \`${open.connector}\``,
        },
      };
    }
    return {
      tag: "allow",
      val: {
        maxBytes: undefined,
        maxSeconds: max_seconds,
        idleSeconds: undefined,
        attributes: [],
        carry: [],
      },
    };
  },
};
