;; contract: 0.2.0
;; imports: wasi:clocks/monotonic-clock@0.2.0 wasi:io/poll@0.2.0
;; exports: open-hook
;; Sleeps for an hour.
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $after (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param i32) (result i32)
  (call $block (call $after (i64.const 3600000000000)))
  (i32.const 64))
