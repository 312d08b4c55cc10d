// The shapes of `wit/0.2` that this plugin uses, as the component model lays them out in memory:
// on wasm32 that is how a C compiler lays out the same structures, so no generator is needed.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { const char *text; size_t length; } string;
typedef struct { bool is_some; string value; } option_string;
typedef struct { bool is_some; uint64_t value; } option_u64;
typedef struct { bool is_some; uint32_t value; } option_u32;
typedef struct { const void *items; size_t length; } list;

typedef struct { string code, detail; } error;
typedef struct { string code, public_text, private_text; } denial;
typedef struct { string name, version, summary; } about;

typedef struct {
  string request_id;
  option_string trace_parent, tenant, session_id, flow_id;
  uint64_t generation, budget_ns;
  bool shadow;
  list attributes;
} call;

typedef struct {
  string ip;
  uint16_t port;
  option_string tls_version, sni, client_san;
  list attributes;
} peer;

typedef struct {
  option_string subject, issuer;
  list groups, attributes;
} viewer;

typedef struct {
  string id, version;
  list scopes, attributes;
} agent;

typedef struct {
  string connector, listener;
  peer peer;
  viewer viewer;
  agent agent;
  bool via_mesh;
  list attributes;
} open_ask;

typedef struct {
  option_u64 max_bytes;
  option_u32 max_seconds, idle_seconds;
  list attributes, carry;
} grant;

typedef struct {
  enum { ALLOW, DENY } __attribute__((packed)) tag;
  union { grant allow; denial deny; };
} verdict;

typedef struct {
  bool is_error;
  union { verdict ok; error error; };
} open_answer;

typedef struct {
  bool is_error;
  error error;
} check_answer;

// All that `on-open` is asked: over 16 values are passed in memory.
typedef struct {
  call call;
  open_ask open;
  list carry;
} open_question;

#define EXPORT(interface, function) \
  __attribute__((export_name("nowconnect:plugin/" interface "@0.2.0#" function)))
#define IMPORT(interface, function)                                       \
  __attribute__((import_module("nowconnect:plugin/" interface "@0.2.0"), \
                 import_name(function)))
#define TEXT(literal) ((string){literal, sizeof(literal) - 1})
