;; imports: log kv
;; exports: open-hook mask-hook
;; Logs how often it was called in this namespace of the table.
(import "nowconnect:plugin/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(import "nowconnect:plugin/kv@0.1.0" "increment" (func $kv_increment (param i32 i32 i64 i32 i32)))
(data (i32.const 528) "calls")
;; increment answers result<s64>, whose number is 8 behind its beginning
(func $count
  (call $kv_increment (i32.const 528) (i32.const 5) (i64.const 1) (i32.const 60) (i32.const 256))
  (i32.store8 (i32.const 512)
    (i32.add (i32.const 48) (i32.wrap_i64 (i64.load (i32.const 264)))))
  (call $write (i32.const 2) (i32.const 512) (i32.const 1) (i32.const 0) (i32.const 0)))
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (call $count)
  (i32.const 64))
(func (export "nowconnect:plugin/mask-hook@0.1.0#mask-entries") (param i32) (result i32)
  (call $count)
  (i32.const 64))
