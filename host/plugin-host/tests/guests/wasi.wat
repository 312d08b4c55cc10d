;; component: as it is
(component
  (import "wasi:cli/environment@0.2.6" (instance (export "get-arguments" (func)))))
