# Prints every formula $$ ... $$ in doc comments as an entry of a JavaScript array: Markdown takes backslashes and
# underscores for its own, so the pages look their formulas up here (formulas.html).
function formulas(  part, n, i) {
  n = split(text, part, "[$][$]")
  for (i = 2; i < n; i += 2) print "String.raw`" part[i] "`,"
  text = ""
}
FNR == 1 { formulas() }
/^[ \t]*\/\/[\/!]/ { sub(/^[ \t]*\/\/[\/!]/, ""); text = text $0 " "; next }
{ formulas() }
END { formulas() }
