;; contract: 0.2.0
;; imports: wasi:cli/stdout@0.2.0 wasi:io/streams@0.2.0 wasi:cli/environment@0.2.0 wasi:filesystem/preopens@0.2.0 wasi:random/random@0.2.0
;; exports: open-hook
;; Looks for an environment and for folders, traps where it finds any, and prints two lines and
;; the beginning of a terminal's escape sequence.
(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
(import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
(import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
(import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
(data (i32.const 512) "one\0atwo\1b[2J")
(func $expect (param $length i32)
  (if (i32.ne (i32.load (i32.const 260)) (local.get $length)) (then (unreachable))))
(func (export "nowconnect:plugin/open-hook@0.2.0#on-open") (param i32) (result i32)
  (call $environment (i32.const 256))
  (call $expect (i32.const 0))
  (call $arguments (i32.const 256))
  (call $expect (i32.const 0))
  (call $directories (i32.const 256))
  (call $expect (i32.const 0))
  (call $random (i64.const 8) (i32.const 256))
  (call $expect (i32.const 8))
  (call $write (call $stdout) (i32.const 512) (i32.const 11) (i32.const 256))
  (i32.const 64))
