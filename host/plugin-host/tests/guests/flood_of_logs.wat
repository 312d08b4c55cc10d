;; imports: log
;; exports: open-hook
(import "nowconnect:plugin/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(data (i32.const 1024) "line\1b[2J")
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (local $left i32)
  (local.set $left (i32.const 1000))
  (loop $more
    (call $write (i32.const 2) (i32.const 1024) (i32.const 8) (i32.const 0) (i32.const 0))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $more (local.get $left)))
  (i32.const 64))
