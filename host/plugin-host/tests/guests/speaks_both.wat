;; imports: log@0.1.0 log@0.2.0
;; exports: open-hook@0.1.0 open-hook@0.2.0
;; For hubs of two kinds: an older one would call the function that traps here. Each import is
;; served in the version that it names.
(import "nowconnect:plugin/log@0.1.0" "write" (func $write_1 (param i32 i32 i32 i32 i32)))
(import "nowconnect:plugin/log@0.2.0" "write" (func $write_2 (param i32 i32 i32 i32 i32)))
(data (i32.const 512) "12")
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32) (unreachable))
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param i32) (result i32)
  (call $write_1 (i32.const 2) (i32.const 512) (i32.const 1) (i32.const 0) (i32.const 0))
  (call $write_2 (i32.const 2) (i32.const 513) (i32.const 1) (i32.const 0) (i32.const 0))
  (i32.const 64))
