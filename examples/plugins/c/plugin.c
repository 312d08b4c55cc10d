// Bounds how many bytes a flow may carry: `max_bytes`, and less on listeners whose name begins
// with `guest`. Two kilobytes, no libc, no WASI.

#include "nowconnect.h"

enum { GUEST_SHARE = 10 };
static const uint64_t MAX_BYTES = 1ull << 30;

IMPORT("config", "get") void config_get(const char *key, size_t length, option_string *value);

static bool begins_with(string text, string beginning) {
  if (text.length < beginning.length) return false;
  for (size_t i = 0; i < beginning.length; i++)
    if (text.text[i] != beginning.text[i]) return false;
  return true;
}

// The setting, or the default; false where it is not a number.
static bool max_bytes(uint64_t *bytes) {
  string key = TEXT("max_bytes");
  option_string value;
  config_get(key.text, key.length, &value);
  *bytes = MAX_BYTES;
  if (!value.is_some) return true;
  *bytes = 0;
  for (size_t i = 0; i < value.value.length; i++) {
    char digit = value.value.text[i];
    if (digit < '0' || digit > '9' || i == 18) return false;
    *bytes = *bytes * 10 + (uint64_t)(digit - '0');
  }
  return *bytes > 0;
}

EXPORT("lifecycle", "describe") about *describe(void) {
  static about it;
  it = (about){TEXT("byte-budget"), TEXT("0.1.0"), TEXT("bounds how many bytes a flow may carry")};
  return &it;
}

EXPORT("lifecycle", "check-config") check_answer *check_config(const char *json, size_t length) {
  (void)json, (void)length;
  static check_answer answer;
  uint64_t bytes;
  answer.is_error = !max_bytes(&bytes);
  answer.error = (error){TEXT("bad_config"), TEXT("`max_bytes` must be a number, 1 or more")};
  return &answer;
}

EXPORT("open-hook", "on-open") open_answer *on_open(const open_question *question) {
  static open_answer answer;
  uint64_t bytes;
  if (!max_bytes(&bytes)) {
    answer.is_error = true;
    answer.error = (error){TEXT("bad_config"), TEXT("`max_bytes` is not a number")};
    return &answer;
  }
  if (begins_with(question->open.listener, TEXT("guest"))) bytes /= GUEST_SHARE;
  if (bytes == 0) {
    answer.ok.tag = DENY;
    answer.ok.deny = (denial){TEXT("no_budget"), TEXT("not allowed"),
                              TEXT("a guest's share of `max_bytes` is nothing")};
    return &answer;
  }
  answer.ok.tag = ALLOW;
  answer.ok.allow = (grant){.max_bytes = {true, bytes}};
  return &answer;
}

// Where the host puts what it passes: an instance lives for one call, so nothing is given back.
extern unsigned char __heap_base;

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size,
                                                                 size_t align, size_t size) {
  static uintptr_t next;
  if (next == 0) next = (uintptr_t)&__heap_base;
  uintptr_t at = (next + align - 1) & ~(uintptr_t)(align - 1);
  size_t have = __builtin_wasm_memory_size(0) << 16;
  if (at + size > have &&
      __builtin_wasm_memory_grow(0, (at + size - have + 0xffff) >> 16) == (size_t)-1)
    __builtin_trap();
  next = at + size;
  for (size_t i = 0; i < old_size && i < size; i++)
    ((unsigned char *)at)[i] = ((unsigned char *)old)[i];
  return (void *)at;
}
