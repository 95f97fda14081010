#!/usr/bin/env python3
"""Run Rust notebooks without a browser, and fail when a cell fails.

usage: check_notebook.py [options] NOTEBOOK...

The kernel answers `ok` to a cell that panicked and to one whose top-level `?` met an error. But it keeps the variables
of a cell only when the cell ran to its end. So each cell gets one more variable, in front, which `:vars` must list
afterwards. A top-level `return` is believed even then and takes the next cell down instead, so an empty cell runs last.

Cells tagged `raises-exception` must fail, with one line a reader can use; cells tagged `skip-execution` are left out.
Exit code: 0 every notebook passed, 1 a cell failed, 2 a notebook could not be read or the kernel did not start.
"""
import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NOT_CODE = re.compile(r"\s*(:[a-z]|!|#!\[|$)")  # commands, shell lines, inner attributes, blank lines


def with_sentinel(source, number):
    """The cell with a variable before its first line of code, on that line; None when it has no code."""
    lines = source.split("\n")
    for i, line in enumerate(lines):
        if not NOT_CODE.match(line):
            lines[i] = f"let __ok_{number}: u8 = 0; {line}"
            return "\n".join(lines)
    return None


def tags(cell):
    return cell.metadata.get("tags", [])


def printed(cell, *kinds):
    """What the cell shows as plain text; with `kinds` only these: stdout, stderr, error, result."""
    parts = []
    for output in cell.outputs:
        if output["output_type"] == "stream":
            kind, text = output["name"], output["text"]
        elif output["output_type"] == "error":
            kind, text = "error", "\n".join(output["traceback"] or [output["evalue"]])
        else:
            kind, text = "result", output["data"].get("text/plain", "")
        if not kinds or kind in kinds:
            parts.append(text.rstrip("\n"))
    return ANSI.sub("", "\n".join(parts)).strip()


class Session:
    """One notebook in one kernel."""

    def __init__(self, client):
        self.client = client

    def execute(self, cell, source, index):
        """Runs `source` in the place of `cell`; returns what the kernel itself says is wrong, or None."""
        original, cell.source = cell.source, source
        try:
            self.client.execute_cell(cell, index, store_history=True)
        except CellExecutionError:
            return "the kernel reported an error"
        except CellTimeoutError:
            return f"timeout: still running after {self.client.timeout} s"
        except DeadKernelError:
            return "the kernel died"
        finally:
            cell.source = original
        return "the kernel reported an error" if any(o["output_type"] == "error" for o in cell.outputs) else None

    def execute_extra(self, source):
        """Runs `source` as a cell that does not stay in the notebook."""
        cells = self.client.nb.cells
        cells.append(nbformat.v4.new_code_cell())
        try:
            return self.execute(cells[-1], source, len(cells) - 1), cells[-1]
        finally:
            cells.pop()

    def variables(self, cell):
        """The variables the kernel holds. Streams that arrive with the answer are late output of `cell`."""
        wrong, question = self.execute_extra(":vars")
        for output in question.outputs:
            if output["output_type"] == "stream":
                cell.outputs.append(output)
        return wrong, "".join(str(o.get("data", {}).get("text/plain", "")) for o in question.outputs)

    def check(self, cell, index):
        """Runs a cell of the notebook; returns what is wrong with it, or None."""
        marked = with_sentinel(cell.source, index)
        wrong = self.execute(cell, marked or cell.source, index)
        if wrong and "has gone missing" in printed(cell):
            return "a cell before this one left early (`return` at top level) and took its variables along"
        if wrong or not marked:
            return wrong
        time.sleep(0.02)
        wrong, names = self.variables(cell)
        if not wrong and f"__ok_{index}:" not in names:
            for _ in range(10):  # the panic's message may still be on its way
                if printed(cell):
                    break
                time.sleep(0.1)
                self.variables(cell)
            wrong = "the cell stopped before its end (a panic, or `?` on an error at top level)"
        return wrong

    def finish(self):
        """One more cell takes all variables out and back: an early `return` in the last cell shows only here."""
        wrong, _ = self.execute_extra("let __end: u8 = 0;")
        return wrong and "the cell left early (`return` at top level)"


def judge(cell, wrong):
    """What is wrong after the cell's tags have been heard."""
    if "raises-exception" not in tags(cell):
        return wrong
    if not wrong:
        return "passed, but is tagged raises-exception"
    if wrong.startswith("timeout") or "died" in wrong:
        return wrong
    return None if printed(cell, "stdout", "error") else "failed as its tag says, but the reader sees no reason"


def indent(text):
    return "".join(f"\n    | {line}" for line in text.split("\n"))


def has_picture(cell):
    return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


def gist(cell):
    """What must stay: every printed line, the first line of a result, whether there is a picture."""
    return printed(cell, "stdout"), printed(cell, "result").split("\n")[0], has_picture(cell)


def same_outputs(path, notebook):
    """Says which cell of the file holds other outputs than the one that ran, if one does."""
    committed = nbformat.read(path, 4)
    for n, (old, new) in enumerate(zip(committed.cells, notebook.cells)):
        if old.cell_type == "code" and "skip-execution" not in tags(old) and gist(old) != gist(new):
            return (f"FAIL {path}, cell {n}: the file holds other outputs than the kernel gives (type: make "
                    f"notebook-outputs)\n  file:{indent(printed(old))}\n  kernel:{indent(printed(new))}")
    return None


def tidy(notebook):
    """Leaves in the outputs only what is the same at every run."""
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.outputs = [o for o in cell.outputs if (o["output_type"], o.get("name")) != ("stream", "stderr")]
        cell.execution_count = number
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            if output["output_type"] == "execute_result":
                output["execution_count"] = number


def check_notebook(path, options):
    """Runs one notebook; prints the verdict; returns the exit code."""
    try:
        notebook = nbformat.read(path, 4)
    except Exception as error:
        print(f"FAIL {path}: cannot be read: {error}")
        return 2
    folder = Path(options.folder or Path(path).parent).resolve()
    client = NotebookClient(
        notebook, kernel_name=options.kernel or notebook.metadata.get("kernelspec", {}).get("name", "rebel-rust"),
        timeout=options.timeout, startup_timeout=options.startup_timeout, shutdown_kernel="immediate",
        record_timing=False, resources={"metadata": {"path": str(folder)}})
    runs = [n for n, cell in enumerate(notebook.cells)
            if cell.cell_type == "code" and cell.source.strip() and "skip-execution" not in tags(cell)]
    start, first_picture, failed = time.time(), None, False
    try:
        with client.setup_kernel():
            session = Session(client)
            for n in runs:
                cell, begin = notebook.cells[n], time.time()
                wrong = session.check(cell, n)
                if first_picture is None and has_picture(cell):
                    first_picture = time.time() - start
                if options.verbose:
                    print(f"  cell {n}: {time.time() - begin:6.2f} s  {wrong or 'ok'}", flush=True)
                if not wrong and n == runs[-1]:
                    wrong = session.finish()
                wrong = judge(cell, wrong)
                if wrong:
                    print(f"FAIL {path}, cell {n}: {wrong}{indent(cell.source)}\n"
                          f"  output:{indent(printed(cell) or '(none)')}")
                    failed = True
                    break
    except DeadKernelError:
        if not failed:
            print(f"FAIL {path}: the kernel died")
            failed = True
    except RuntimeError as error:
        print(f"FAIL {path}: the kernel did not start: {error}")
        return 2
    if failed:
        return 1
    difference = same_outputs(path, notebook) if options.compare else None
    if difference:
        print(difference)
        return 1
    if options.write:
        tidy(notebook)
        nbformat.write(notebook, path)
    picture = f", first picture after {first_picture:.1f} s" if first_picture is not None else ""
    print(f"PASS {path}: {len(runs)} cells, {time.time() - start:.1f} s{picture}", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    parser.add_argument("--kernel", help="instead of the one the notebook names")
    parser.add_argument("--folder", help="where the cells run and `:dep` paths start (default: the notebook's folder)")
    parser.add_argument("--timeout", type=int, default=180, help="seconds a cell may take")
    parser.add_argument("--startup-timeout", type=int, default=300, help="seconds the kernel may take to answer")
    parser.add_argument("--compare", action="store_true", help="fail when the outputs are not those in the file")
    parser.add_argument("--write", action="store_true", help="put the outputs into the file")
    parser.add_argument("-v", "--verbose", action="store_true", help="the time of every cell")
    chosen = parser.parse_args()
    sys.exit(max(check_notebook(path, chosen) for path in chosen.notebooks))
