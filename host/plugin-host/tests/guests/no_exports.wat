;; component: as it is
(component)
