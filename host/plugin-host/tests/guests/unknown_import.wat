;; component: as it is
(component
  (import "acme:machine/root" (instance (export "shell" (func)))))
