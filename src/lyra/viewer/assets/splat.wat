;; Composites splats, nearest first, into a band of rows: the loop of the page's renderer for browsers without a GPU.
;;
;; A splat is 64 bytes: centre x, y; conic xx, 2 xy, yy times -0.5 log2(e); opacity; red, green, blue (f32); then the box
;; of pixels left, top, right, bottom (i32, exclusive). A pixel's state is in groups of four neighbours, 64 bytes: four
;; transmittances, reds, greens and blues. Four pixels are one vector. Pixels have ended where less than 0.001 passes.
(module
  (memory (import "page" "memory") 1)

  ;; Writes for every 16 columns of a band whether some pixel in them has not ended (i32).
  (func (export "survey") (param $band i32) (param $rows i32) (param $stride i32) (param $open i32)
    (local $x i32) (local $y i32) (local $at i32) (local $most v128)
    (loop $blocks
      (local.set $most (v128.const f32x4 0 0 0 0))
      (local.set $y (i32.const 0))
      (loop $rows
        (local.set $at (i32.add (local.get $band) (i32.shl
          (i32.add (i32.mul (local.get $y) (local.get $stride)) (local.get $x)) (i32.const 4))))
        (local.set $most (f32x4.pmax (local.get $most) (v128.load (local.get $at))))
        (local.set $most (f32x4.pmax (local.get $most) (v128.load offset=64 (local.get $at))))
        (local.set $most (f32x4.pmax (local.get $most) (v128.load offset=128 (local.get $at))))
        (local.set $most (f32x4.pmax (local.get $most) (v128.load offset=192 (local.get $at))))
        (br_if $rows (i32.lt_s (local.tee $y (i32.add (local.get $y) (i32.const 1))) (local.get $rows))))
      (i32.store (local.get $open)
        (v128.any_true (f32x4.gt (local.get $most) (v128.const f32x4 0.001 0.001 0.001 0.001))))
      (local.set $open (i32.add (local.get $open) (i32.const 4)))
      (br_if $blocks (i32.lt_s (local.tee $x (i32.add (local.get $x) (i32.const 16))) (local.get $stride)))))

  ;; Composites `count` splats into rows `top` to `bottom`.
  (func (export "composite")
    (param $splat i32) (param $count i32) (param $band i32) (param $top i32) (param $bottom i32) (param $stride i32)
    (param $open i32)
    (local $y i32) (local $last i32) (local $x i32) (local $right i32) (local $left i32) (local $at i32) (local $end i32)
    (local $dy f32) (local $row v128) (local $slope v128) (local $xx v128) (local $dx v128)
    (local $before v128) (local $alpha v128) (local $whole v128) (local $rest v128)
    (local $opacity v128) (local $red v128) (local $green v128) (local $blue v128) (local $dx0 v128)
    (local.set $end (i32.add (local.get $splat) (i32.shl (local.get $count) (i32.const 6))))
    (block $done (loop $splats
      (br_if $done (i32.ge_u (local.get $splat) (local.get $end)))
      (local.set $y (i32.load offset=40 (local.get $splat)))
      (if (i32.lt_s (local.get $y) (local.get $top)) (then (local.set $y (local.get $top))))
      (local.set $last (i32.load offset=48 (local.get $splat)))
      (if (i32.gt_s (local.get $last) (local.get $bottom)) (then (local.set $last (local.get $bottom))))
      (if (i32.lt_s (local.get $y) (local.get $last)) (then
        (local.set $left (i32.and (i32.load offset=36 (local.get $splat)) (i32.const -4)))
        (local.set $right (i32.load offset=44 (local.get $splat)))
        ;; Columns at either end in which all has ended are left out.
        (block $trimmed (loop $trim
          (br_if $trimmed (i32.ge_s (local.get $left) (local.get $right)))
          (br_if $trimmed (i32.load (i32.add (local.get $open)
            (i32.shl (i32.shr_u (local.get $left) (i32.const 4)) (i32.const 2)))))
          (local.set $left (i32.and (i32.add (local.get $left) (i32.const 16)) (i32.const -16)))
          (br $trim)))
        (block $trimmed (loop $trim
          (br_if $trimmed (i32.ge_s (local.get $left) (local.get $right)))
          (br_if $trimmed (i32.load (i32.add (local.get $open)
            (i32.shl (i32.shr_u (i32.sub (local.get $right) (i32.const 1)) (i32.const 4)) (i32.const 2)))))
          (local.set $right (i32.and (i32.sub (local.get $right) (i32.const 1)) (i32.const -16)))
          (br $trim)))
        (if (i32.lt_s (local.get $left) (local.get $right)) (then
        (local.set $xx (v128.load32_splat offset=8 (local.get $splat)))
        (local.set $opacity (v128.load32_splat offset=20 (local.get $splat)))
        (local.set $red (v128.load32_splat offset=24 (local.get $splat)))
        (local.set $green (v128.load32_splat offset=28 (local.get $splat)))
        (local.set $blue (v128.load32_splat offset=32 (local.get $splat)))
        (local.set $dx0 (f32x4.sub
          (f32x4.add (v128.const f32x4 0.5 1.5 2.5 3.5) (f32x4.splat (f32.convert_i32_s (local.get $left))))
          (v128.load32_splat (local.get $splat))))
        (loop $rows
          (local.set $dy (f32.sub
            (f32.add (f32.convert_i32_s (local.get $y)) (f32.const 0.5)) (f32.load offset=4 (local.get $splat))))
          (local.set $slope (f32x4.splat (f32.mul (local.get $dy) (f32.load offset=12 (local.get $splat)))))
          (local.set $row (f32x4.splat (f32.mul
            (f32.mul (local.get $dy) (local.get $dy)) (f32.load offset=16 (local.get $splat)))))
          (local.set $dx (local.get $dx0))
          (local.set $x (local.get $left))
          (local.set $at (i32.add (local.get $band) (i32.shl
            (i32.add (i32.mul (i32.sub (local.get $y) (local.get $top)) (local.get $stride)) (local.get $x))
            (i32.const 4))))
          (loop $groups
            (local.set $before (v128.load (local.get $at)))
            ;; Pixels through which next to nothing passes have ended.
            (if (v128.any_true (f32x4.gt (local.get $before) (v128.const f32x4 0.001 0.001 0.001 0.001))) (then
              (local.set $rest (f32x4.add (local.get $row) (f32x4.mul (local.get $dx)
                (f32x4.add (local.get $slope) (f32x4.mul (local.get $dx) (local.get $xx))))))
              (local.set $rest (f32x4.pmax (v128.const f32x4 -64 -64 -64 -64) (local.get $rest)))
              ;; Two to that power: the nearest whole power times a polynomial of what is left.
              (local.set $whole (f32x4.nearest (local.get $rest)))
              (local.set $rest (f32x4.sub (local.get $rest) (local.get $whole)))
              (local.set $alpha (f32x4.add (v128.const f32x4 0.05550713 0.05550713 0.05550713 0.05550713)
                (f32x4.mul (local.get $rest) (v128.const f32x4 0.00967554 0.00967554 0.00967554 0.00967554))))
              (local.set $alpha (f32x4.add (v128.const f32x4 0.24022120 0.24022120 0.24022120 0.24022120)
                (f32x4.mul (local.get $rest) (local.get $alpha))))
              (local.set $alpha (f32x4.add (v128.const f32x4 0.69314697 0.69314697 0.69314697 0.69314697)
                (f32x4.mul (local.get $rest) (local.get $alpha))))
              (local.set $alpha (f32x4.add (v128.const f32x4 1 1 1 1) (f32x4.mul (local.get $rest) (local.get $alpha))))
              (local.set $alpha (i32x4.add (local.get $alpha)
                (i32x4.shl (i32x4.trunc_sat_f32x4_s (local.get $whole)) (i32.const 23))))
              (local.set $alpha (f32x4.pmin (v128.const f32x4 0.999 0.999 0.999 0.999)
                (f32x4.mul (local.get $opacity) (local.get $alpha))))
              ;; Fainter than 1/255 is skipped.
              (local.set $alpha (v128.and (local.get $alpha) (f32x4.ge (local.get $alpha)
                (v128.const f32x4 0.003921569 0.003921569 0.003921569 0.003921569))))
              (local.set $alpha (f32x4.mul (local.get $alpha) (local.get $before)))
              (v128.store (local.get $at) (f32x4.sub (local.get $before) (local.get $alpha)))
              (v128.store offset=16 (local.get $at) (f32x4.add (v128.load offset=16 (local.get $at))
                (f32x4.mul (local.get $alpha) (local.get $red))))
              (v128.store offset=32 (local.get $at) (f32x4.add (v128.load offset=32 (local.get $at))
                (f32x4.mul (local.get $alpha) (local.get $green))))
              (v128.store offset=48 (local.get $at) (f32x4.add (v128.load offset=48 (local.get $at))
                (f32x4.mul (local.get $alpha) (local.get $blue))))))
            (local.set $dx (f32x4.add (local.get $dx) (v128.const f32x4 4 4 4 4)))
            (local.set $at (i32.add (local.get $at) (i32.const 64)))
            (br_if $groups (i32.lt_s (local.tee $x (i32.add (local.get $x) (i32.const 4))) (local.get $right))))
          (br_if $rows (i32.lt_s (local.tee $y (i32.add (local.get $y) (i32.const 1))) (local.get $last))))))))
      (local.set $splat (i32.add (local.get $splat) (i32.const 64)))
      (br $splats)))))
