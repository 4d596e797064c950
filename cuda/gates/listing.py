"""Readers of what nvcc and nvdisasm print: ptxas' report, PTX, machine code. Text in, dictionaries out."""
import re
import subprocess

# Memory instructions are told apart by width, FFMA and the tensor cores' by their base name alone.
MEMORY = ("LDG", "STG", "LDGSTS", "LDS", "STS", "LDL", "STL", "LD", "ST")
WIDTHS = {"U8": "8", "S8": "8", "8": "8", "U16": "16", "S16": "16", "16": "16", "64": "64", "128": "128"}
OTHERS = ("LDSM", "BAR", "SHFL", "MUFU")


def read_ptxas(report: str) -> dict:
    """{symbol: registers, barriers, shared, stack, spill_stores, spill_loads} from nvcc -Xptxas -v."""
    kernels, row = {}, None
    for line in report.splitlines():
        entry = re.search(r"Compiling entry function '(\S+)' for 'sm_\w+'", line)
        if entry:
            row = kernels[entry.group(1)] = dict.fromkeys(
                ("registers", "barriers", "shared", "stack", "spill_stores", "spill_loads"), 0)
        if row is None:
            continue
        # A function that was not inlined has such a line of its own: its kernel answers for it.
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if frame:
            row["stack"] += int(frame.group(1))
            row["spill_stores"] += int(frame.group(2))
            row["spill_loads"] += int(frame.group(3))
        used = re.search(r"Used (\d+) registers", line)
        if used:
            row["registers"] = int(used.group(1))
            for key, pattern in (("barriers", r"used (\d+) barriers"), ("shared", r"(\d+) bytes smem")):
                found = re.search(pattern, line)
                row[key] = int(found.group(1)) if found else 0
    return kernels


def read_ptx(ptx: str) -> dict:
    """{symbol: threads (None without __launch_bounds__), dynamic_shared (whether it has any)}."""
    dynamic = re.findall(r"^\.extern\s+\.shared\s.*?(\w+)\[\]", ptx, re.M)
    kernels = {}
    for part in re.split(r"^(?:\.visible |\.weak )?\.entry ", ptx, flags=re.M)[1:]:
        symbol = re.match(r"\w+", part).group()
        head = part.split("{", 1)[0]
        body = part.split("\n}", 1)[0]
        bounds = re.search(r"\.maxntid (\d+)(?:, (\d+), (\d+))?", head)
        threads = None
        if bounds:
            threads = int(bounds.group(1)) * int(bounds.group(2) or 1) * int(bounds.group(3) or 1)
        uses = any(re.search(rf"\b{name}\b", body) for name in dynamic)
        kernels[symbol] = {"threads": threads, "dynamic_shared": uses}
    return kernels


def read_launches(source: str) -> dict:
    """{kernel: bytes of dynamic shared memory} from PLUMB_LAUNCHED("kernel", expression, bytes) in a .cu file.

    The macro is to static_assert that the expression has this value, so that the compiler vouches for it.
    """
    calls = re.findall(r'^PLUMB_LAUNCHED\(\s*"([^"]+)",(?:[^;]*),\s*(\d+)\s*\);', source, re.M)
    return {kernel: int(size) for kernel, size in calls}


def instruction_class(opcode: str):
    """The class an instruction is counted in, or None."""
    base, *modifiers = opcode.split(".")
    if base.startswith("FFMA"):
        return "FFMA"
    if base.endswith("MMA"):
        return "HMMA"
    if base in MEMORY:
        return f"{base}.{next((WIDTHS[m] for m in modifiers if m in WIDTHS), '32')}"
    return base if base in OTHERS else None


def read_sass(text: str) -> dict:
    """{symbol: {class: count}} from nvdisasm -c or cuobjdump -sass; "all" leaves out NOPs, which pad."""
    kernels, row = {}, None
    for line in text.splitlines():
        name = re.match(r"\s*(?:\.text\.(\S+):|Function : (\S+))\s*$", line)
        if name:
            row = kernels[name.group(1) or name.group(2)] = {"all": 0}
            continue
        found = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line)
        if row is None or not found or found.group(1) == "NOP":
            continue
        row["all"] += 1
        kind = instruction_class(found.group(1))
        if kind:
            row[kind] = row.get(kind, 0) + 1
    return {symbol: {key: row[key] for key in sorted(row)} for symbol, row in kernels.items()}


def read_late_loads(text: str) -> dict:
    """{symbol: 16-byte loads of global memory that come after a store to it}, in the order of the listing."""
    late, row, stored = {}, None, False
    for line in text.splitlines():
        name = re.match(r"\s*(?:\.text\.(\S+):|Function : (\S+))\s*$", line)
        if name:
            row, stored = name.group(1) or name.group(2), False
            late[row] = 0
        found = re.search(r"\b(LDG|STG)\.[\w.]*", line)
        if row is None or not found:
            continue
        stored = stored or found.group(1) == "STG"
        late[row] += stored and instruction_class(found.group()) == "LDG.128"
    return late


def without_parameters(name: str) -> str:
    """A function's name up to its parameter list, with its template arguments."""
    depth = 0
    for i, c in enumerate(name):
        if c == "<":
            depth += 1
        elif c == ">":
            depth -= 1
        elif c == "(" and depth == 0:
            return name[:i]
    return name


def short_name(name: str) -> str:
    """tile_kernel<(Form)1, 128, float> for what c++filt prints."""
    name = re.sub(r"^(?:void|static|inline)\s+", "", name)
    name = re.sub(r"\bplumb::(?:v\w+::)?(?:(?:kernels|gpu|detail|ladder)::)*", "", name)
    return without_parameters(name)


def demangle(symbols) -> dict:
    """{symbol: short name}, by binutils' c++filt."""
    symbols = list(symbols)
    if not symbols:
        return {}
    out = subprocess.run(["c++filt"], input="\n".join(symbols), check=True, text=True, capture_output=True).stdout
    names = [short_name(line) for line in out.splitlines()]
    # Names that the shortening made equal keep their symbols.
    return {s: n if names.count(n) == 1 else f"{n} [{s}]" for s, n in zip(symbols, names)}
