;; imports: kv
;; exports: open-hook
(import "nowconnect:plugin/kv@0.1.0" "delete" (func $delete (param i32 i32 i32)))
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (call $delete (i32.const 0) (i32.const 0) (i32.const 32))
  (i32.const 64))
