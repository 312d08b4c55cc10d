;; imports: log
;; exports: open-hook
;; Logs which call of this instance it is, and traps for a connector whose name begins with `x`.
;; The name of the connector is 72 behind the beginning of the arguments.
(import "nowconnect:plugin/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(global $calls (mut i32) (i32.const 48))
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param $args i32) (result i32)
  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  (i32.store8 (i32.const 512) (global.get $calls))
  (call $write (i32.const 2) (i32.const 512) (i32.const 1) (i32.const 0) (i32.const 0))
  (if (i32.eq (i32.load8_u (i32.load offset=72 (local.get $args))) (i32.const 120))
    (then (unreachable)))
  (i32.const 64))
