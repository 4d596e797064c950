"""Reads a PTX file: its variables, functions, scopes and statements, with their line numbers.

Knows PTX's syntax and nothing of its instructions: ptx_translate.py makes C++ of what is read here.
"""

import re

TYPES = {}
for _bits in (8, 16, 32, 64):
    TYPES[f"u{_bits}"] = TYPES[f"b{_bits}"] = f"U{_bits}"
    TYPES[f"s{_bits}"] = f"S{_bits}"
TYPES |= {"f32": "F32", "f64": "F64", "f16": "Half", "bf16": "Brain", "pred": "bool"}


class PtxError(Exception):
    """What the translator refuses, with the line of the PTX file."""

    def __init__(self, line, what):
        super().__init__(what)
        self.line = line


def width(type_name):
    """Bytes of a scalar type."""
    return 1 if type_name == "pred" else int(re.sub(r"\D", "", type_name)) // 8


def split_operands(text):
    """Operands at the outer level of braces, brackets and parentheses."""
    parts, depth, current = [], 0, ""
    for ch in text:
        depth += ch in "{[("
        depth -= ch in "}])"
        if ch == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += ch
    if current.strip():
        parts.append(current.strip())
    return parts


class Variable:
    """A .global, .const, .shared or .local variable, or a parameter."""

    def __init__(self, space, name, size, alignment, element, values=None, extern=False):
        self.space, self.name, self.size, self.alignment = space, name, size, alignment
        self.element, self.values, self.extern = element, values, extern
        self.offset = 0


def parse_variable(text, line):
    """`.shared .align 4 .b8 name[256]`, `.param .u64 name`, `.global .align 4 .b8 t[2] = {1, 2}`."""
    body, _, initial = text.partition("=")
    words = body.split()
    space, alignment, element, extern = None, None, None, False
    name = None
    while words:
        word = words.pop(0)
        if word in (".visible", ".weak", ".common"):
            continue
        if word == ".extern":
            extern = True
        elif word in (".global", ".const", ".shared", ".local", ".param"):
            space = word[1:]
        elif word == ".align":
            alignment = int(words.pop(0))
        elif word == ".ptr":  # `.ptr .global .align 4`: what the pointer points to, of no use here
            while words and words[0] in (".global", ".const", ".shared", ".local", ".align"):
                if words.pop(0) == ".align":
                    words.pop(0)
        elif word.startswith(".") and word[1:] in TYPES:
            element = word[1:]
        elif not word.startswith("."):
            name = word + "".join(words)
            break
        else:
            raise PtxError(line, f"directive {word} on a variable")
    match = re.fullmatch(r"([\w$%.]+)((?:\[\d*\])*)", name or "")
    if not match or space is None or element is None:
        raise PtxError(line, f"variable not understood: {text}")
    count = 1
    for extent in re.findall(r"\[(\d*)\]", match.group(2)):
        count *= int(extent or 0)
    values = None
    if initial.strip():
        values = [v.strip() for v in initial.strip().strip("{}").split(",")]
    elements = width(element)
    return Variable(space, match.group(1), count * elements, alignment or elements, element, values, extern)


class Statement:
    """A label, directive or instruction of a body, with the scope it stands in."""

    def __init__(self, kind, text, line, scope, source):
        self.kind, self.text, self.line, self.scope, self.source = kind, text, line, scope, source


class Scope:
    """Names declared between a `{` and its `}`: registers, labels, call parameters."""

    def __init__(self, parent, number):
        self.parent, self.number, self.names, self.labels = parent, number, {}, {}

    def find(self, table, name):
        scope = self
        while scope is not None:
            found = getattr(scope, table).get(name)
            if found is not None:
                return found
            scope = scope.parent
        return None


class Function:
    """An .entry or .func: its parameters and the statements of its body."""

    def __init__(self, kind, name, line):
        self.kind, self.name, self.line = kind, name, line
        self.parameters, self.results, self.variables, self.statements = [], [], [], []
        self.max_threads, self.calls, self.symbols, self.root = 0, set(), set(), None


class Module:
    def __init__(self):
        self.target, self.files, self.variables, self.functions = "", {}, {}, []
        self.declared = set()


def without_comments(text):
    """Comments become blanks; line breaks stay, so that lines keep their numbers."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0)) if match.group(0)[0] == "/" else match.group(0)
    return re.sub(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', blank, text, flags=re.S)


class Reader:
    """Walks the module's text; knows the line that it is at."""

    LINE_DIRECTIVE = re.compile(r"\s*\.(version|target|address_size|file)\b([^\n]*)")

    def __init__(self, text):
        self.text, self.at = without_comments(text), 0
        self.starts = [0] + [m.end() for m in re.finditer("\n", self.text)]
        self.module = Module()

    def line(self, at):
        low, high = 0, len(self.starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.starts[middle] <= at else (low, middle)
        return low + 1

    def matching(self, at):
        """Position after the brace that closes the one at `at`."""
        depth = 0
        for match in re.compile(r'"(?:[^"\\]|\\.)*"|[{}]').finditer(self.text, at):
            depth += {"{": 1, "}": -1}.get(match.group(0), 0)
            if depth == 0:
                return match.end()
        raise PtxError(self.line(at), "a brace is not closed")

    def read(self):
        while True:
            match = re.compile(r"\S").search(self.text, self.at)
            if not match:
                return self.module
            self.at = match.start()
            directive = self.LINE_DIRECTIVE.match(self.text, self.at)
            if directive:
                self.line_directive(directive.group(1), directive.group(2).strip())
                self.at = directive.end()
            elif self.text.startswith(".section", self.at):
                self.at = self.matching(self.text.index("{", self.at))
            elif re.compile(r"(\.\w+\s+)*\.(entry|func)\b").match(self.text, self.at):
                self.function()
            elif self.text[self.at] == ".":
                end = self.text.index(";", self.at)
                variable = parse_variable(self.text[self.at:end], self.line(self.at))
                self.module.variables[variable.name] = variable
                self.at = end + 1
            else:
                raise PtxError(self.line(self.at), f"not understood: {self.text[self.at:self.at + 40]!r}")

    def line_directive(self, name, rest):
        if name == "target":
            self.module.target = rest.split(",")[0].strip()
        elif name == "address_size" and rest != "64":
            raise PtxError(self.line(self.at), f"address_size {rest}")
        elif name == "file":
            number, path = re.match(r'(\d+)\s+"([^"]*)"', rest).groups()
            self.module.files[int(number)] = path

    def function(self):
        start = self.at
        end = re.compile(r"[;{]").search(self.text, start).start()
        head = self.text[start:end]
        match = re.match(r"(?:\.(?:visible|weak|extern)\s+)*\.(entry|func)\s*(?:\.noreturn\s+)?(\([^)]*\))?\s*"
                         r"(?:\.noreturn\s+)?([\w$]+)\s*(\([^)]*\))?(.*)$", head, flags=re.S)
        if not match:
            raise PtxError(self.line(start), f"function not understood: {head.strip()[:80]!r}")
        kind, results, name, parameters, directives = match.groups()
        if self.text[end] == ";":
            self.module.declared.add(name)
            self.at = end + 1
            return
        function = Function(kind, name, self.line(start))
        for target, listed in ((function.results, results), (function.parameters, parameters)):
            for text in split_operands((listed or "()").strip()[1:-1]):
                target.append(parse_variable(text, function.line))
        self.function_directives(function, directives)
        self.at = self.matching(end)
        self.body(function, end + 1, self.at - 1)
        self.module.functions.append(function)

    def function_directives(self, function, text):
        for name, values in re.findall(r"\.(\w+)([^.]*)", text):
            numbers = [int(n) for n in re.findall(r"\d+", values)]
            if name in ("maxntid", "reqntid"):
                function.max_threads = 1
                for n in numbers:
                    function.max_threads *= n
            elif name not in ("minnctapersm", "maxnreg", "noreturn"):
                raise PtxError(function.line, f"directive .{name} of {function.name}")

    TOKEN = re.compile(r'\s+|"(?:[^"\\]|\\.)*"|\.(?:loc|file)\b[^\n]*|([\w$]+)\s*:(?!:)|[;{}]|[^\s;{}":]+|::|:')

    def body(self, function, at, end):
        scope = function.root = Scope(None, 0)
        scopes, pending, pending_at, braces, source = 0, "", at, 0, None
        while at < end:
            match = self.TOKEN.match(self.text, at, end)
            token = match.group(0)
            if not pending.strip() and not token.isspace():
                pending, pending_at = "", at
                if token == "{":
                    scopes += 1
                    scope = Scope(scope, scopes)
                elif token == "}":
                    scope = scope.parent
                elif re.match(r"\.loc\b", token):
                    source = [tuple(map(int, p)) for p in re.findall(r"(?:\.loc|inlined_at)\s+(\d+)\s+(\d+)", token)]
                elif match.group(1):
                    label = match.group(1)
                    scope.labels[label] = f"{label.replace('$', '')}_{scope.number}"
                    function.statements.append(Statement("label", label, self.line(at), scope, source))
                elif token != ";":
                    pending = token
            elif token == ";" and braces == 0:
                text = " ".join(pending.split())
                self.statement(function, text, self.line(pending_at), scope, source)
                pending = ""
            else:
                braces += {"{": 1, "}": -1}.get(token, 0)
                pending += token
            at = match.end()
        if pending.strip():
            raise PtxError(self.line(pending_at), f"statement does not end: {pending.strip()[:60]!r}")

    def statement(self, function, text, line, scope, source):
        if text.startswith(".reg"):
            self.registers(text, line, scope)
        elif re.match(r"(\.visible |\.weak )*\.(shared|local|const|global|param)\b", text):
            variable = parse_variable(text, line)
            scope.names[variable.name] = variable
            function.variables.append(variable)
            variable.scope = scope.number
        elif text.startswith(".pragma"):
            pass
        elif text.startswith(".branchtargets"):
            labels = [t.strip() for t in text[len(".branchtargets"):].split(",")]
            if not function.statements or function.statements[-1].kind != "label":
                raise PtxError(line, ".branchtargets without a label")
            scope.names[function.statements.pop().text] = labels
        elif text.startswith("."):
            raise PtxError(line, f"directive {text.split()[0]} in {function.name}")
        else:
            function.statements.append(Statement("instruction", text, line, scope, source))

    def registers(self, text, line, scope):
        kind, names = re.match(r"\.reg\s*\.(\w+)\s+(.*)", text).groups()
        if kind not in TYPES:
            raise PtxError(line, f"register type .{kind}")
        for name in names.split(","):
            ranged = re.fullmatch(r"([\w$%]+)<(\d+)>", name.strip())
            listed = [f"{ranged.group(1)}{i}" for i in range(int(ranged.group(2)))] if ranged else [name.strip()]
            for register in listed:
                plain = register.replace("%", "").replace("$", "_")
                scope.names[register] = Register(f"{plain}_{scope.number}", kind)


class Register:
    def __init__(self, name, kind):
        self.name, self.kind, self.used = name, kind, False
        # f16 registers hold bits; arithmetic views them.
        self.type = {"f16": "U16", "bf16": "U16"}.get(kind, TYPES[kind])
