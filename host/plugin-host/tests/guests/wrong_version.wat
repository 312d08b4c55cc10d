;; component: as it is
(component
  (import "nowconnect:plugin/log@0.3.0" (instance (export "write" (func)))))
