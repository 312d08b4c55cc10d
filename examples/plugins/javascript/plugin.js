// Answers in place of an origin that is being worked on: 503 with a page, for endpoints and
// paths that the operator names, but not for people in the groups that may pass.

import { json } from "nowconnect:plugin/config@0.2.0";

const KEYS = ["endpoints", "paths", "pass_groups", "message", "retry_after_seconds"];

function settings(text) {
  const given = JSON.parse(text);
  for (const key of Object.keys(given)) {
    if (!KEYS.includes(key)) {
      throw badConfig(`\`${key}\` is not known; known are ${KEYS.join(", ")}`);
    }
  }
  const all = {
    endpoints: [],
    paths: ["/"],
    pass_groups: [],
    message: "We are working on it.",
    retry_after_seconds: 600,
    ...given,
  };
  for (const key of ["endpoints", "paths", "pass_groups"]) {
    if (!Array.isArray(all[key]) || all[key].some((item) => typeof item !== "string")) {
      throw badConfig(`\`${key}\` must be a list of texts`);
    }
  }
  if (typeof all.message !== "string" || !Number.isInteger(all.retry_after_seconds)) {
    throw badConfig("`message` must be a text and `retry_after_seconds` a whole number");
  }
  return all;
}

const badConfig = (detail) => ({ code: "bad_config", detail });

// QuickJS has no TextEncoder of its own.
function utf8(text) {
  const bytes = [];
  for (const letter of text) {
    const code = letter.codePointAt(0);
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else
      bytes.push(
        0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return new Uint8Array(bytes);
}

const escaped = (text) =>
  text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

export const lifecycle = {
  describe: () => ({
    name: "maintenance",
    version: "0.1.0",
    summary: "answers in place of an origin that is being worked on",
  }),
  checkConfig(text) {
    settings(text);
  },
};

export const httpRequestHook = {
  onRequest(call, request, carry) {
    const { endpoints, paths, pass_groups, message, retry_after_seconds } = settings(json());
    const path = request.head.pathWithQuery.split("?")[0];
    const closed =
      endpoints.includes(request.endpoint) && paths.some((beginning) => path.startsWith(beginning));
    const passes = request.viewer.groups.some((group) => pass_groups.includes(group));
    if (!closed || passes) {
      return { tag: "next", val: { edits: [], carry: [] } };
    }
    const field = (name, value) => [name, utf8(value)];
    return {
      tag: "reply",
      val: {
        status: 503,
        headers: [
          field("content-type", "text/html; charset=utf-8"),
          field("retry-after", String(retry_after_seconds)),
        ],
        body: utf8(`<!doctype html><title>Back soon</title><p>${escaped(message)}</p>\n`),
      },
    };
  },
};
