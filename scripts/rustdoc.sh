#!/bin/sh
# rustdoc as cargo calls it in this checkout (.cargo/config.toml). Pages of the workspace's own crates get a header that
# typesets the formulas in them; KaTeX and the formulas are put beside the pages, which then need no network and can be
# moved anywhere.
set -u
root=$(cd "$(dirname "$0")/.." && pwd -P)
rustdoc=$(dirname "${CARGO:-cargo}")/rustdoc
[ -x "$rustdoc" ] || rustdoc=rustdoc

out= previous= tests=
for argument; do
  case $previous in -o | --out-dir) out=$argument ;; esac
  [ "$argument" != --test ] || tests=yes
  previous=$argument
done

# cargo documents dependencies in their own folders, and runs the examples in comments through rustdoc too
if [ -z "$out" ] || [ -n "$tests" ] || [ "$(pwd -P)" != "$root" ]; then
  exec "$rustdoc" "$@"
fi
mkdir -p "$out/katex/fonts"
cp figures/assets/katex/katex.min.* figures/assets/katex/LICENSE "$out/katex/"
cp figures/assets/katex/fonts/*.woff2 "$out/katex/fonts/"
{
  echo 'const FORMULAS = ['
  find src theory/src trainer/src figures/src notebooks/facade/src -name '*.rs' | LC_ALL=C sort |
    xargs awk -f docs/rustdoc/formulas.awk
  echo '];'
} > "$out/katex/formulas.js.$$" && mv "$out/katex/formulas.js.$$" "$out/katex/formulas.js"
exec "$rustdoc" --html-in-header docs/rustdoc/formulas.html "$@"
