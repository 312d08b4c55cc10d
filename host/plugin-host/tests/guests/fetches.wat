;; contract: 0.2.0
;; imports: log config fetch
;; exports: open-hook
;; Sends `POST` with the body `ping` and the field `x-a: b` to the URL in its settings, and logs
;; the answer's body, or the code of the failure.
(import "nowconnect:plugin/log@0.2.0" "write" (func $write (param i32 i32 i32 i32 i32)))
(import "nowconnect:plugin/config@0.2.0" "get" (func $setting (param i32 i32 i32)))
(import "nowconnect:plugin/fetch@0.2.0" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
(data (i32.const 512) "urlPOSTpingx-ab")
;; One field: its name and its value.
(data (i32.const 544) "\0b\02\00\00\03\00\00\00\0e\02\00\00\01\00\00\00")
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param i32) (result i32)
  (call $setting (i32.const 512) (i32.const 3) (i32.const 256))
  (call $send
    (i32.const 515) (i32.const 4)
    (i32.load (i32.const 260)) (i32.load (i32.const 264))
    (i32.const 544) (i32.const 1)
    (i32.const 519) (i32.const 4)
    (i32.const 0) (i32.const 0)
    (i32.const 256))
  (if (i32.load8_u (i32.const 256))
    (then (call $tell (i32.load (i32.const 260)) (i32.load (i32.const 264))))
    (else (call $tell (i32.load (i32.const 272)) (i32.load (i32.const 276)))))
  (i32.const 64))
(func $tell (param $at i32) (param $length i32)
  (call $write (i32.const 2) (local.get $at) (local.get $length) (i32.const 0) (i32.const 0)))
