;; exports: open-hook
(func (export "nowconnect:plugin/open-hook@0.1.0#on-open") (param i32) (result i32)
  (loop $forever (br $forever))
  (unreachable))
