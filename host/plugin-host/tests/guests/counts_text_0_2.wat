;; contract: 0.2.0
;; imports: log kv
;; exports: open-hook
;; Increments what is no counter, with a good and a bad time to live, and logs the codes.
(import "nowconnect:plugin/log@0.2.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(import "nowconnect:plugin/kv@0.2.0" "set" (func $kv_set (param i32 i32 i32 i32 i32 i32)))
(import "nowconnect:plugin/kv@0.2.0" "increment" (func $kv_increment (param i32 i32 i64 i32 i32)))
(data (i32.const 512) "kept")
(func $increment (param $ttl i32)
  (call $kv_increment (i32.const 512) (i32.const 4) (i64.const 1) (local.get $ttl) (i32.const 256))
  (call $write (i32.const 2) (i32.load (i32.const 264)) (i32.load (i32.const 268))
    (i32.const 0) (i32.const 0)))
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param i32) (result i32)
  (call $kv_set (i32.const 512) (i32.const 4) (i32.const 512) (i32.const 4) (i32.const 60)
    (i32.const 256))
  (call $increment (i32.const 60))
  (call $increment (i32.const 0))
  (i32.const 64))
