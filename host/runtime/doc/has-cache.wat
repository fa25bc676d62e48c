;; A component that opens the cache `ram` and reports whether it exists.
(component
  (import "larder:cache/cache@0.1.1" (instance $cache
    (export "cache" (type $handle (sub resource)))
    (type $variant (variant
      (case "no-such-cache") (case "access-denied") (case "invalid-argument" string) (case "value-too-large" u64)
      (case "timeout") (case "unavailable") (case "other" string)))
    (export "error" (type $error (eq $variant)))
    (export "open" (func (param "name" string) (result (result (own $handle) (error $error)))))))

  (core module $memory
    (memory (export "memory") 1)
    (data (i32.const 16) "ram")
    ;; Only the text of an error is allocated, at most one at a time.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $memory (instantiate $memory))
  (core func $open
    (canon lower (func $cache "open") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))

  (core module $plugin
    (import "host" "open" (func $open (param i32 i32 i32)))
    (import "memory" "memory" (memory 1))
    (func (export "has-cache") (result i32)
      (call $open (i32.const 16) (i32.const 3) (i32.const 64))
      ;; The first byte of the result is 0 for `ok`.
      (i32.eqz (i32.load8_u (i32.const 64)))))
  (core instance $plugin (instantiate $plugin
    (with "host" (instance (export "open" (func $open))))
    (with "memory" (instance $memory))))
  (func (export "has-cache") (result bool) (canon lift (core func $plugin "has-cache"))))
