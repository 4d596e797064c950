#!/usr/bin/env python3
"""Translates nvcc's PTX to C++ that runs on the emulator's threads, one C++ statement per instruction.

    ptx_translate.py kernels.ptx -o kernels.ptx.cpp [--fatbin kernels.fatbin] [--forbid-approximate]

Each entry becomes a C++ function of one thread; device functions that nvcc did not inline become
functions that pass their parameters as bytes. Registers are local variables, labels are labels and
branches are gotos. What an instruction computes is ptx_arithmetic.hpp; memory, barriers and whatever a
warp does together is ptx_thread.hpp. The file registers itself as a module (ptx_module.hpp) under the
hash of the fatbin in which nvcc packed the same PTX, so that a program cannot run with the translation
of another version of its source.

Not a general PTX front end: an opcode, modifier, type or directive that is not listed here is an error
that names the line and the kernel, with exit status 1. Nothing is skipped in silence.

Source: PTX ISA 9.0. Line numbers in `# 9.7.x` refer to its chapters.
"""

import argparse
import re
import sys

TYPES = {}
for _bits in (8, 16, 32, 64):
    TYPES[f"u{_bits}"] = TYPES[f"b{_bits}"] = f"U{_bits}"
    TYPES[f"s{_bits}"] = f"S{_bits}"
TYPES |= {"f32": "F32", "f64": "F64", "f16": "Half", "bf16": "Brain", "pred": "bool"}
INTEGERS = {"u16", "s16", "u32", "s32", "u64", "s64"}
FLOATS = {"f32", "f64", "f16", "bf16"}
ROUNDINGS = {"rn": "nearest", "rz": "toward_zero", "rm": "downward", "rp": "upward"}
INTEGRAL_ROUNDINGS = {"rni": "nearest", "rzi": "toward_zero", "rmi": "downward", "rpi": "upward"}
CACHE_HINTS = {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "L1::evict_normal", "L1::evict_first",
               "L1::evict_last", "L1::evict_unchanged", "L1::no_allocate", "L2::64B", "L2::128B",
               "L2::256B"}
SCOPES = {"cta", "gpu", "sys", "cluster"}
SPECIAL = {"%laneid": "t.lane()", "%warpid": "t.warp()", "%nwarpid": "t.warps()",
           "%lanemask_eq": "t.lane_mask_eq()", "%lanemask_le": "t.lane_mask_le()",
           "%lanemask_lt": "t.lane_mask_lt()", "%lanemask_ge": "t.lane_mask_ge()",
           "%lanemask_gt": "t.lane_mask_gt()", "%clock": "t.clock()", "%clock_hi": "(t.clock() >> 32)",
           "%clock64": "t.clock()", "%globaltimer": "t.clock()", "%smid": "0", "%nsmid": "1",
           "%gridid": "0", "%dynamic_smem_size": "t.dynamic_shared_bytes()",
           "%total_smem_size": "t.shared_bytes()"}
for _name in ("tid", "ntid", "ctaid", "nctaid"):
    for _axis in "xyz":
        SPECIAL[f"%{_name}.{_axis}"] = f"t.{_name}.{_axis}"


class PtxError(Exception):
    """What the translator refuses, with the line of the PTX file."""

    def __init__(self, line, what):
        super().__init__(what)
        self.line = line


def width(type_name):
    """Bytes of a scalar type."""
    return 1 if type_name == "pred" else int(re.sub(r"\D", "", type_name)) // 8


def align_up(value, alignment):
    return (value + alignment - 1) // alignment * alignment


def c_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


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


# ---- Reading -------------------------------------------------------------------------------------


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


# ---- Translating ---------------------------------------------------------------------------------


class Body:
    """Writes one function: C++ lines, the sites of its memory and warp operations, its basic blocks."""

    def __init__(self, translator, function):
        self.translator, self.function = translator, function
        self.lines, self.carry, self.used = [], False, {}
        self.statement = None

    def fail(self, what):
        raise PtxError(self.statement.line, f"{what} (in {self.function.name})")

    # Operands

    def register(self, name):
        found = self.statement.scope.find("names", name)
        if isinstance(found, Register):
            self.used[found.name] = found
            return found
        return None

    def value(self, text, kind):
        """C++ expression of the operand as a value of PTX type `kind`."""
        text = text.strip()
        if kind == "pred":
            negated = text.startswith("!")
            register = self.register(text.lstrip("! "))
            if register is None or register.kind != "pred":
                if text in ("0", "1"):
                    return "true" if text == "1" else "false"
                self.fail(f"predicate {text}")
            return ("!" if negated else "") + register.name
        register = self.register(text)
        if register is not None:
            if register.kind == "pred":
                self.fail(f"predicate {text} as a {kind}")
            c_type = TYPES[kind]
            return register.name if register.type == c_type else f"get<{c_type}>({register.name})"
        if text in SPECIAL:
            return f"static_cast<{TYPES[kind]}>({SPECIAL[text]})"
        if text.startswith("%"):
            self.fail(f"special register {text}")
        return self.constant(text, kind)

    def constant(self, text, kind):
        match = re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text)
        if match:
            single, double = match.groups()
            literal = f"0x{single}u" if single else f"0x{double}ull"
            if kind == "f32" and single:
                return f"f32({literal})"
            if kind == "f64" and double:
                return f"f64({literal})"
            if kind in ("b32", "u32", "s32", "b64", "u64", "s64") and width(kind) == (4 if single else 8):
                return f"static_cast<{TYPES[kind]}>({literal})"
            self.fail(f"constant {text} as a {kind}")
        if re.fullmatch(r"-?\s*(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", text):
            digits = text.rstrip("U").replace(" ", "")
            number = int(digits, 8 if re.fullmatch(r"-?0[0-7]+", digits) else 0)
            bits = 8 * width(kind)
            number &= (1 << bits) - 1
            if kind in ("f16", "bf16"):
                return f"{TYPES[kind]}{{0x{number:x}u}}"
            if kind in FLOATS:
                self.fail(f"integer {text} as a {kind}")
            return f"static_cast<{TYPES[kind]}>(0x{number:x}ull)"
        return f"static_cast<{TYPES[kind]}>({self.symbol_address(text)})"

    def symbol(self, name):
        found = self.statement.scope.find("names", name)
        if found is None:
            found = next((p for p in self.function.parameters + self.function.results if p.name == name), None)
        if found is None:
            found = self.translator.module.variables.get(name)
        return found

    def symbol_address(self, text):
        """The address of a variable in its own space: shared is an offset, others are host addresses."""
        match = re.fullmatch(r"([\w$]+)\s*(?:\+\s*(-?\d+))?", text)
        found = match and self.symbol(match.group(1))
        if not isinstance(found, Variable):
            self.fail(f"operand {text}")
        offset = int(match.group(2) or 0)
        self.function.symbols.add(found.name)
        if found.space == "shared":
            base = "t.dynamic_shared_offset()" if found.extern else f"{self.translator.shared_offset(found)}u"
            return f"{base} + {offset}" if offset else base
        base = f"address_of({self.bytes_of(found)})"
        return f"{base} + {offset}" if offset else base

    def bytes_of(self, variable):
        """C++ name of the bytes of a variable outside shared memory."""
        if variable.space in ("global", "const"):
            return self.translator.global_name(variable)
        if variable in self.function.parameters and self.function.kind == "entry":
            return f"(t.parameters() + {variable.offset})"
        plain = re.sub(r"\W", "_", variable.name)
        return f"{plain}_{getattr(variable, 'scope', 'p')}"

    def vector(self, text):
        text = text.strip()
        return split_operands(text[1:-1]) if text.startswith("{") else [text]

    def assign(self, target, kind, expression):
        """Statement that writes a value of type `kind` to the operand."""
        target = target.strip()
        if target == "_":
            return f"static_cast<void>({expression});"
        register = self.register(target)
        if register is None:
            self.fail(f"target {target}")
        if register.type == TYPES[kind]:
            return f"{register.name} = {expression};"
        return f"set({register.name}, {expression});"

    def address(self, text, space):
        """Address operand `[register + offset]` or `[variable + offset]`, as a number in its space."""
        match = re.fullmatch(r"\[\s*([\w$%.]+)\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if not match:
            self.fail(f"address {text}")
        base, offset = match.group(1), int(match.group(2) or "0", 0)
        kind = "u32" if space == "shared" else "u64"
        if self.register(base) is not None:
            expression = self.value(base, kind)
        elif re.fullmatch(r"\d+|0x[0-9a-fA-F]+", base):
            expression = f"static_cast<{TYPES[kind]}>({base})"
        else:
            expression = f"static_cast<{TYPES[kind]}>({self.symbol_address(base)})"
        if offset:
            expression += f" + static_cast<{TYPES[kind]}>({offset})"
        return expression

    def site(self):
        """A new site: what a report about this instruction can name."""
        return self.translator.add_site(self.function, self.statement, self.opcode)

    # The whole function

    def translate(self):
        after_jump = True
        for statement in self.function.statements:
            self.statement = statement
            if statement.kind == "label":
                self.lines.append(f"{statement.scope.labels[statement.text]}:;")
                after_jump = True
                continue
            guard, opcode, operands = self.parse(statement.text)
            self.opcode = opcode
            if after_jump:
                self.lines.append(f"  ++{self.translator.add_block()};")
                after_jump = False
            self.translator.count(opcode)
            text = self.instruction(opcode, operands)
            if guard:
                condition = self.value(guard, "pred")
                text = f"if ({condition}) {{ {text} }}"
            self.lines.append("  " + text)
            if opcode.split(".")[0] in ("bra", "brx", "ret", "exit", "trap"):
                after_jump = True

    def parse(self, text):
        match = re.match(r"(?:@(!?\s*[\w%$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", text, flags=re.S)
        if not match:
            self.fail(f"statement not understood: {text!r}")
        return match.group(1), match.group(2), split_operands(match.group(3))

    def instruction(self, opcode, operands):
        parts = opcode.split(".")
        handler = HANDLERS.get(parts[0])
        if handler is None:
            self.fail(f"opcode {opcode} is not known")
        modifiers = Modifiers(self, opcode, parts[1:])
        text = handler(self, modifiers, operands)
        modifiers.finish()
        return text

    def approximate(self, why):
        if self.translator.forbid_approximate:
            self.fail(f"{why} is an approximation, which --forbid-approximate rules out")
        self.translator.approximations += 1


class Modifiers:
    """The dotted words after an opcode; a word that no handler took is an error."""

    def __init__(self, body, opcode, words):
        self.body, self.opcode, self.words = body, opcode, words

    def take(self, *names):
        """Removes the first of `names` that is present and returns it."""
        for word in self.words:
            if word in names:
                self.words.remove(word)
                return word
        return None

    def drop(self, names):
        while self.take(*names):
            pass

    def need(self, *names):
        found = self.take(*names)
        if found is None:
            self.body.fail(f"{self.opcode} needs one of .{', .'.join(names)}")
        return found

    def type(self, allowed=None):
        """The last word, which must be a type (of those allowed)."""
        if not self.words or self.words[-1] not in (allowed or TYPES):
            self.body.fail(f"type of {self.opcode}")
        return self.words.pop()

    def finish(self):
        if self.words:
            self.body.fail(f"modifier .{self.words[0]} of {self.opcode} is not known")


HANDLERS = {}


def handles(*names):
    def register(function):
        for name in names:
            HANDLERS[name] = function
        return function
    return register


def base(modifiers):
    return modifiers.opcode.split(".")[0]


def operands_as(body, operands, kind):
    return [body.value(o, kind) for o in operands]


def finish_float(expression, flush, saturate, relu=False):
    if relu:
        expression = f"relu({expression})"
    if saturate:
        expression = f"saturate_unit({expression})"
    return f"flush({expression})" if flush else expression


def float_inputs(body, operands, kind, flush):
    return [f"flush({v})" if flush else v for v in operands_as(body, operands, kind)]


# 9.7.1, 9.7.2, 9.7.3: arithmetic


@handles("add", "sub", "addc", "subc")
def add(body, m, o):
    name = base(m)
    kind = m.type(INTEGERS | FLOATS | {"b32", "b64"})
    if kind in FLOATS:
        return float_binary(body, m, o, kind, name)
    a, b = operands_as(body, o[1:], kind)
    carries_in, carries_out, saturates = name.endswith("c"), m.take("cc"), m.take("sat")
    if carries_in or carries_out:
        body.carry = True
        function = "add_carry" if name.startswith("add") else "sub_borrow"
        carry = "carry" if carries_in else "false"
        out = "carry" if carries_out else "unused_carry"
        return body.assign(o[0], kind, f"{function}<{TYPES[kind]}>({a}, {b}, {carry}, {out})")
    if saturates:
        if kind != "s32":
            body.fail(f"{m.opcode}")
        sign = "+" if name == "add" else "-"
        return body.assign(o[0], kind, f"int_saturate(S64{{{a}}} {sign} S64{{{b}}})")
    return body.assign(o[0], kind, f"int_{name}<{TYPES[kind]}>({a}, {b})")


def float_binary(body, m, o, kind, name):
    rounding, flush, saturate = m.take(*ROUNDINGS), m.take("ftz"), m.take("sat")
    if rounding is None and kind in ("f32", "f64"):
        body.translator.contractible.append(body.statement.line)
    a, b = float_inputs(body, o[1:], kind, flush)
    if rounding in (None, "rn"):
        expression = f"float_{name}<{TYPES[kind]}>({a}, {b})"
    elif name == "sub":
        expression = f"add_rounded({a}, float_neg({b}), {ROUNDINGS[rounding]})"
    else:
        expression = f"{name}_rounded({a}, {b}, {ROUNDINGS[rounding]})"
    return body.assign(o[0], kind, finish_float(expression, flush, saturate))


@handles("mul")
def mul(body, m, o):
    kind = m.type(INTEGERS | FLOATS)
    if kind in FLOATS:
        return float_binary(body, m, o, kind, "mul")
    part = m.need("lo", "hi", "wide")
    a, b = operands_as(body, o[1:], kind)
    result = kind if part != "wide" else kind[0] + str(16 * width(kind))
    return body.assign(o[0], result, f"int_mul_{part}<{TYPES[kind]}>({a}, {b})")


@handles("mad", "madc")
def mad(body, m, o):
    kind = m.type(INTEGERS)
    part = m.need("lo", "hi", "wide")
    result = kind if part != "wide" else kind[0] + str(16 * width(kind))
    a, b = operands_as(body, o[1:3], kind)
    c = body.value(o[3], result)
    product = f"int_mul_{part}<{TYPES[kind]}>({a}, {b})"
    carries_in, carries_out = base(m) == "madc", m.take("cc")
    if m.take("sat"):
        if kind != "s32" or part != "hi" or carries_in or carries_out:
            body.fail(m.opcode)
        return body.assign(o[0], kind, f"int_saturate(S64{{{product}}} + S64{{{c}}})")
    if carries_in or carries_out:
        body.carry = True
        carry = "carry" if carries_in else "false"
        out = "carry" if carries_out else "unused_carry"
        return body.assign(o[0], result, f"add_carry<{TYPES[result]}>({product}, {c}, {carry}, {out})")
    return body.assign(o[0], result, f"int_add<{TYPES[result]}>({product}, {c})")


@handles("mul24", "mad24")
def mul24(body, m, o):
    kind = m.type({"u32", "s32"})
    m.need("lo")
    a, b = operands_as(body, o[1:3], kind)
    expression = f"mul24_lo<{TYPES[kind]}>({a}, {b})"
    if base(m) == "mad24":
        expression = f"int_add<{TYPES[kind]}>({expression}, {body.value(o[3], kind)})"
    return body.assign(o[0], kind, expression)


@handles("fma")
def fma(body, m, o):
    kind = m.type(FLOATS)
    rounding, flush, saturate, relu = m.need(*ROUNDINGS), m.take("ftz"), m.take("sat"), m.take("relu")
    a, b, c = float_inputs(body, o[1:], kind, flush)
    if rounding == "rn":
        expression = f"float_fma<{TYPES[kind]}>({a}, {b}, {c})"
    else:
        expression = f"fma_rounded({a}, {b}, {c}, {ROUNDINGS[rounding]})"
    return body.assign(o[0], kind, finish_float(expression, flush, saturate, relu))


@handles("div")
def div(body, m, o):
    kind = m.type(INTEGERS | {"f32", "f64"})
    if kind in INTEGERS:
        a, b = operands_as(body, o[1:], kind)
        return body.assign(o[0], kind, f"int_div<{TYPES[kind]}>({a}, {b})")
    return float_root(body, m, o, kind, "div")


@handles("sqrt", "rcp")
def sqrt(body, m, o):
    return float_root(body, m, o, m.type({"f32", "f64"}), base(m))


def float_root(body, m, o, kind, name):
    """Quotients, reciprocals and roots: correctly rounded, or `.approx`, which is the nearest here."""
    rounding, flush = m.need("approx", "full", *ROUNDINGS), m.take("ftz")
    values = float_inputs(body, o[1:], kind, flush)
    if name == "rcp":
        name, values = "div", [f"{TYPES[kind]}{{1}}", values[0]]
    if rounding in ("approx", "full"):
        body.approximate(m.opcode)
    if rounding in ("approx", "full", "rn"):
        expression = f"float_{name}({', '.join(values)})"
    else:
        expression = f"{name}_rounded({', '.join(values)}, {ROUNDINGS[rounding]})"
    return body.assign(o[0], kind, finish_float(expression, flush, None))


@handles("rem")
def rem(body, m, o):
    kind = m.type(INTEGERS)
    a, b = operands_as(body, o[1:], kind)
    return body.assign(o[0], kind, f"int_rem<{TYPES[kind]}>({a}, {b})")


@handles("neg", "abs")
def negate(body, m, o):
    kind = m.type(INTEGERS | FLOATS)
    flush = m.take("ftz")
    family = "float" if kind in FLOATS else "int"
    value = float_inputs(body, o[1:], kind, flush)[0]
    return body.assign(o[0], kind, f"{family}_{base(m)}<{TYPES[kind]}>({value})")


@handles("min", "max")
def extremum(body, m, o):
    kind = m.type(INTEGERS | FLOATS)
    if kind in INTEGERS:
        values = operands_as(body, o[1:], kind)
        return body.assign(o[0], kind, f"int_{base(m)}<{TYPES[kind]}>({', '.join(values)})")
    flush, keep = m.take("ftz"), "_nan" if m.take("NaN") else ""
    values = float_inputs(body, o[1:], kind, flush)
    return body.assign(o[0], kind, f"float_{base(m)}{keep}<{TYPES[kind]}>({', '.join(values)})")


@handles("ex2", "lg2", "sin", "cos", "tanh", "rsqrt")
def approximation(body, m, o):
    name = {"ex2": "exp2", "lg2": "log2"}.get(base(m), base(m))
    kind = m.type({"f32", "f64", "f16", "bf16"} if name in ("exp2", "tanh", "rsqrt") else {"f32"})
    m.need("approx")
    flush = m.take("ftz") and kind in ("f32", "f64")
    body.approximate(m.opcode)
    value = float_inputs(body, o[1:], kind, flush)[0]
    return body.assign(o[0], kind, finish_float(f"approx_{name}({value})", flush, None))


@handles("copysign")
def copysign(body, m, o):
    kind = m.type({"f32", "f64"})
    return body.assign(o[0], kind, f"copy_sign({', '.join(operands_as(body, o[1:], kind))})")


@handles("testp")
def testp(body, m, o):
    kind = m.type({"f32", "f64"})
    which = m.need("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    return body.assign(o[0], "pred", f"test_class({body.value(o[1], kind)}, FloatClass::{which})")


# 9.7.1, 9.7.8: bits


@handles("and", "or", "xor")
def logic(body, m, o):
    kind = m.type({"pred", "b16", "b32", "b64"})
    a, b = operands_as(body, o[1:], kind)
    sign = {"and": "&", "or": "|", "xor": "^"}[base(m)]
    return body.assign(o[0], kind, f"static_cast<{TYPES[kind]}>({a} {sign} {b})")


@handles("not", "cnot")
def complement(body, m, o):
    kind = m.type({"pred", "b16", "b32", "b64"})
    value = body.value(o[1], kind)
    sign = "!" if kind == "pred" or base(m) == "cnot" else "~"
    return body.assign(o[0], kind, f"static_cast<{TYPES[kind]}>({sign}({value}))")


@handles("lop3")
def lop3(body, m, o):
    m.type({"b32"})
    values = operands_as(body, o[1:5], "b32")
    return body.assign(o[0], "b32", f"lop3({', '.join(values)})")


@handles("shl", "shr")
def shift(body, m, o):
    kind = m.type({f"{s}{b}" for s in ("b", "u", "s") for b in (16, 32, 64)})
    return body.assign(o[0], kind, f"{base(m)}<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], 'u32')})")


@handles("shf")
def funnel(body, m, o):
    m.type({"b32"})
    side, mode = m.need("l", "r"), m.need("wrap", "clamp")
    low, high, n = operands_as(body, o[1:], "b32")
    n = f"({n} & 31u)" if mode == "wrap" else n
    return body.assign(o[0], "b32", f"funnel_{'left' if side == 'l' else 'right'}({low}, {high}, {n})")


@handles("bfe")
def bfe(body, m, o):
    kind = m.type({"u32", "s32", "u64", "s64"})
    return body.assign(o[0], kind, f"bit_extract<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], 'u32')}, {body.value(o[3], 'u32')})")


@handles("bfi")
def bfi(body, m, o):
    kind = m.type({"b32", "b64"})
    return body.assign(o[0], kind, f"bit_insert<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], kind)}, {body.value(o[3], 'u32')}, {body.value(o[4], 'u32')})")


@handles("bfind")
def bfind(body, m, o):
    kind = m.type({"u32", "s32", "u64", "s64"})
    shift_amount = "true" if m.take("shiftamt") else "false"
    return body.assign(o[0], "u32", f"bit_find<{TYPES[kind]}>({body.value(o[1], kind)}, {shift_amount})")


@handles("clz", "popc", "brev")
def count_bits(body, m, o):
    kind = m.type({"b32", "b64"})
    value = body.value(o[1], kind)
    if base(m) == "brev":
        return body.assign(o[0], kind, f"bit_reverse({value})")
    function = {"clz": "countl_zero", "popc": "popcount"}[base(m)]
    return body.assign(o[0], "u32", f"static_cast<U32>(std::{function}({value}))")


@handles("prmt")
def prmt(body, m, o):
    m.type({"b32"})
    return body.assign(o[0], "b32", f"permute({', '.join(operands_as(body, o[1:], 'b32'))})")


@handles("dp4a")
def dp4a(body, m, o):
    b_type, a_type = m.type({"u32", "s32"}), m.type({"u32", "s32"})
    views = ", ".join({"u": "U8", "s": "S8"}[t[0]] for t in (a_type, b_type))
    return body.assign(o[0], "b32", f"dot4<{views}>({', '.join(operands_as(body, o[1:], 'b32'))})")


@handles("sad")
def sad(body, m, o):
    kind = m.type(INTEGERS)
    return body.assign(o[0], kind, f"absolute_difference_plus<{TYPES[kind]}>({', '.join(operands_as(body, o[1:], kind))})")


# 9.7.5, 9.7.6: comparison and selection

COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
               "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
UNORDERED = {"equ": "==", "neu": "!=", "ltu": "<", "leu": "<=", "gtu": ">", "geu": ">="}


def comparison(body, word, kind, a, b, flush):
    if kind in FLOATS:
        a, b = (f"widen({'flush(' + v + ')' if flush else v})" for v in (a, b))
        both = f"({a} == {a} && {b} == {b})"
        if word in ("num", "nan"):
            return both if word == "num" else f"!{both}"
        if word in UNORDERED:
            return f"(!{both} || {a} {UNORDERED[word]} {b})"
        if word == "ne":
            return f"({both} && {a} != {b})"
        if word in ("lo", "ls", "hi", "hs"):
            body.fail(f"comparison .{word} of {kind}")
        return f"({a} {COMPARISONS[word]} {b})"
    if word not in COMPARISONS:
        body.fail(f"comparison .{word} of {kind}")
    return f"({a} {COMPARISONS[word]} {b})"


@handles("setp", "set")
def compare(body, m, o):
    kind = m.type(INTEGERS | FLOATS | {"b16", "b32", "b64"})
    result = m.type({"u32", "s32", "f32", "f16", "bf16", "u16", "s16"}) if base(m) == "set" else "pred"
    word = m.need(*COMPARISONS, *UNORDERED, "num", "nan")
    combine, flush = m.take("and", "or", "xor"), m.take("ftz")
    compared_as = "u" + kind[1:] if word in ("lo", "ls", "hi", "hs") else kind
    a, b = operands_as(body, o[1:3], compared_as)
    condition = comparison(body, word, kind, a, b, flush)
    signs = {"and": "&&", "or": "||", "xor": "!="}
    third = body.value(o[3], "pred") if combine else None
    if base(m) == "set":
        if combine:
            condition = f"({condition} {signs[combine]} {third})"
        ones = {"f32": ("1.0f", "0.0f"), "f16": ("Half{0x3c00}", "Half{}"), "bf16": ("Brain{0x3f80}", "Brain{}")}
        yes, no = ones.get(result, (f"static_cast<{TYPES[result]}>(-1)", f"{TYPES[result]}{{0}}"))
        return body.assign(o[0], result, f"{condition} ? {yes} : {no}")
    targets = o[0].split("|")
    first = condition if not combine else f"({condition} {signs[combine]} {third})"
    if len(targets) == 1:
        return body.assign(targets[0], "pred", first)
    second = f"!{condition}" if not combine else f"(!{condition} {signs[combine]} {third})"
    return (f"{{ const bool yes = {first}, no = {second}; {body.assign(targets[0], 'pred', 'yes')} "
            f"{body.assign(targets[1], 'pred', 'no')} }}")


@handles("selp")
def selp(body, m, o):
    kind = m.type(set(TYPES) - {"pred", "u8", "s8", "b8"})
    a, b = operands_as(body, o[1:3], kind)
    return body.assign(o[0], kind, f"{body.value(o[3], 'pred')} ? {a} : {b}")


@handles("slct")
def slct(body, m, o):
    chosen = m.type({"s32", "f32"})
    kind = m.type(set(TYPES) - {"pred", "u8", "s8", "b8"})
    flush = m.take("ftz")
    a, b = operands_as(body, o[1:3], kind)
    condition = body.value(o[3], chosen)
    condition = f"flush({condition})" if flush else condition
    return body.assign(o[0], kind, f"{condition} >= 0 ? {a} : {b}")


# 9.7.9: data movement


@handles("mov")
def mov(body, m, o):
    kind = m.type(set(TYPES) - {"u8", "s8", "b8"})
    source, target = o[1], o[0]
    if source.startswith("{"):
        parts = body.vector(source)
        bits = 8 * width(kind) // len(parts)
        values = operands_as(body, parts, f"b{bits}")
        joined = " | ".join(f"static_cast<U{8 * width(kind)}>(static_cast<U{8 * width(kind)}>({v}) << {i * bits})"
                            for i, v in enumerate(values))
        return body.assign(target, f"b{8 * width(kind)}", f"static_cast<U{8 * width(kind)}>({joined})")
    if target.startswith("{"):
        parts = body.vector(target)
        bits = 8 * width(kind) // len(parts)
        value = body.value(source, f"b{8 * width(kind)}")
        writes = [body.assign(p, f"b{bits}", f"static_cast<U{bits}>(whole >> {i * bits})") for i, p in enumerate(parts)]
        return f"{{ const U{8 * width(kind)} whole = {value}; {' '.join(w for p, w in zip(parts, writes) if p != '_')} }}"
    return body.assign(target, kind, body.value(source, kind))


@handles("cvta")
def cvta(body, m, o):
    kind = m.type({"u64", "u32"})
    if kind != "u64":
        body.fail(m.opcode)
    to = m.take("to")
    space = m.need("global", "const", "local", "param", "shared", "shared::cta")
    if space.startswith("shared"):
        function = "shared_from_generic" if to else "generic_from_shared"
        return body.assign(o[0], kind, f"t.{function}({body.value(o[1], 'u64')})")
    return body.assign(o[0], kind, body.value(o[1], kind))


@handles("isspacep")
def isspacep(body, m, o):
    space = m.need("global", "const", "local", "shared", "shared::cta").replace("::cta", "")
    return body.assign(o[0], "pred", f"t.is_in(Space::{SPACES[space]}, {body.value(o[1], 'u64')})")


SPACES = {"global": "global", "shared": "shared", "local": "local", "const": "constant"}


def memory_modifiers(body, m):
    """Space and vector length. A synchronising access is checked like any other: Plumb has no spin waits."""
    m.take("relaxed", "acquire", "release")
    if m.take("volatile"):
        body.translator.volatile += 1
    m.take("weak")
    m.drop(SCOPES)
    m.drop(CACHE_HINTS)
    space = m.take(*SPACES, "shared::cta", "param", "param::entry", "param::func")
    space = (space or "generic").split("::")[0]
    count = {"v2": 2, "v4": 4, None: 1}[m.take("v2", "v4")]
    return space, count


@handles("ld", "ldu")
def load(body, m, o):
    kind = m.type(set(TYPES) - {"pred", "f16", "bf16"})
    space, count = memory_modifiers(body, m)
    targets = body.vector(o[0])
    if len(targets) != count:
        body.fail(f"{len(targets)} targets of {m.opcode}")
    c_type = TYPES[kind]
    if space == "param":
        source = parameter_bytes(body, o[1], count * width(kind))
        return " ".join(body.assign(r, kind, f"parameter<{c_type}>({source}, {i})") for i, r in enumerate(targets))
    call = f"t.load<Space::{SPACES.get(space, 'generic')}, {c_type}, {count}>({body.address(o[1], space)}, {body.site()})"
    if count == 1:
        return body.assign(targets[0], kind, f"{call}[0]")
    writes = " ".join(body.assign(r, kind, f"m[{i}]") for i, r in enumerate(targets))
    return f"{{ const auto m = {call}; {writes} }}"


@handles("st")
def store(body, m, o):
    kind = m.type(set(TYPES) - {"pred", "f16", "bf16"})
    space, count = memory_modifiers(body, m)
    sources = body.vector(o[1])
    if len(sources) != count:
        body.fail(f"{len(sources)} sources of {m.opcode}")
    c_type = TYPES[kind]
    values = operands_as(body, sources, kind)
    if space == "param":
        target = parameter_bytes(body, o[0], count * width(kind))
        return " ".join(f"set_parameter<{c_type}>({target}, {i}, {v});" for i, v in enumerate(values))
    return (f"t.store<Space::{SPACES.get(space, 'generic')}, {c_type}, {count}>"
            f"({body.address(o[0], space)}, {{{', '.join(values)}}}, {body.site()});")


def parameter_bytes(body, text, length):
    """Pointer to a parameter's bytes; an offset beyond its size is an error of the translation."""
    match = re.fullmatch(r"\[\s*([\w$%]+)\s*(?:\+\s*(-?\d+))?\s*\]", text)
    if not match:
        body.fail(f"parameter {text}")
    name, offset = match.group(1), int(match.group(2) or 0)
    if body.register(name) is not None:
        return f"t.parameter_at({body.value(name, 'u64')} + {offset}, {length}, {body.site()})"
    found = body.symbol(name)
    if not isinstance(found, Variable) or found.space != "param":
        body.fail(f"parameter {name}")
    if offset < 0 or offset + length > found.size:
        body.fail(f"bytes {offset} to {offset + length} of the parameter {name}, which has {found.size}")
    return f"{body.bytes_of(found)} + {offset}"


@handles("prefetch", "prefetchu", "applypriority", "discard")
def prefetch(body, m, o):
    m.drop({"global", "local", "L1", "L2", "L2::evict_last", "L2::evict_normal"})
    return f"static_cast<void>({body.address(o[0], 'global')});"


@handles("atom", "red")
def atomic(body, m, o):
    kind = m.type({"u32", "s32", "u64", "s64", "b32", "b64", "f32", "f64"})
    m.take("relaxed", "acquire", "release", "acq_rel")
    m.drop(SCOPES)
    m.drop(CACHE_HINTS)
    space = (m.take("global", "shared", "shared::cta") or "generic").split("::")[0]
    name = m.need("add", "min", "max", "inc", "dec", "exch", "cas", "and", "or", "xor")
    if kind[0] == "f" and name != "add" or kind[0] == "b" and name in ("add", "min", "max", "inc", "dec"):
        body.fail(m.opcode)
    place = 1 if base(m) == "atom" else 0
    values = operands_as(body, o[place + 1:], kind)
    if len(values) != (2 if name == "cas" else 1):
        body.fail(f"operands of {m.opcode}")
    old = (f"t.atomic<Space::{SPACES.get(space, 'generic')}, {TYPES[kind]}>({body.address(o[place], space)}, "
           f"[=]({TYPES[kind]} old) {{ return {ATOMIC[name].format(T=TYPES[kind], a=values[0], b=values[-1])}; }}, {body.site()})")
    return body.assign(o[0], kind, old) if place else f"static_cast<void>({old});"


ATOMIC = {"add": "atomic_add<{T}>(old, {a})", "min": "int_min<{T}>(old, {a})", "max": "int_max<{T}>(old, {a})",
          "inc": "old >= {a} ? {T}{{0}} : static_cast<{T}>(old + 1)",
          "dec": "old == 0 || old > {a} ? {a} : static_cast<{T}>(old - 1)", "exch": "{a}",
          "cas": "old == {a} ? {b} : old", "and": "static_cast<{T}>(old & {a})",
          "or": "static_cast<{T}>(old | {a})", "xor": "static_cast<{T}>(old ^ {a})"}


@handles("cvt")
def cvt(body, m, o):
    if "bf16x2" in m.words or "f16x2" in m.words:
        return convert_pair(body, m, o)
    source = m.type()
    if "tf32" in m.words:
        m.need("tf32")
        rounding = m.need("rna", "rn")
        ties = "true" if rounding == "rna" else "false"
        return body.assign(o[0], "b32", f"tf32_from({body.value(o[1], source)}, {ties})")
    target = m.type()
    integral, rounding = m.take(*INTEGRAL_ROUNDINGS), m.take(*ROUNDINGS)
    flush, saturate, rel = m.take("ftz"), m.take("sat"), m.take("relu")
    flush_in, flush_out = flush and source == "f32", flush and target == "f32"
    value = body.value(o[1], source)
    value = f"flush({value})" if flush_in else value
    to = TYPES[target]
    if source in FLOATS and target not in FLOATS:
        if integral is None:
            body.fail(f"{m.opcode} without a rounding")
        return body.assign(o[0], target, f"to_integer<{to}>({value}, {INTEGRAL_ROUNDINGS[integral]})")
    if source not in FLOATS and target in FLOATS:
        expression = f"from_integer<{to}>({value}, {ROUNDINGS[rounding or 'rn']})"
    elif source in FLOATS:
        expression = value
        if source != target:
            exact = width(target) > width(source)
            if rounding is None and not exact:
                body.fail(f"{m.opcode} without a rounding")
            expression = f"from_float<{to}>({value}, {ROUNDINGS[rounding or 'rn']})"
        elif integral:
            if source in ("f16", "bf16"):
                body.fail(m.opcode)
            expression = f"round_to_integral({value}, {INTEGRAL_ROUNDINGS[integral]})"
        elif rounding is not None:
            body.fail(m.opcode)
    else:
        function = "to_width_saturated" if saturate else "to_width"
        return body.assign(o[0], target, f"{function}<{to}>({value})")
    return body.assign(o[0], target, finish_float(expression, flush_out, saturate, rel))


def convert_pair(body, m, o):
    """cvt.rn.bf16x2.f32 d, a, b: a in the upper half."""
    m.type({"f32"})
    small = {"bf16x2": "Brain", "f16x2": "Half"}[m.need("bf16x2", "f16x2")]
    rounding, rel = m.need("rn", "rz"), m.take("relu")
    halves = [finish_float(f"from_float<{small}>({body.value(v, 'f32')}, {ROUNDINGS[rounding]})", None, None, rel) for v in o[1:]]
    return body.assign(o[0], "b32", f"pair_of({halves[1]}, {halves[0]})")


# 9.7.12: control flow


@handles("bra")
def branch(body, m, o):
    m.take("uni")
    return f"goto {label(body, o[0])};"


def label(body, name):
    found = body.statement.scope.find("labels", name)
    if found is None:
        body.fail(f"label {name}")
    return found


@handles("brx")
def branch_indexed(body, m, o):
    m.need("idx")
    m.take("uni")
    targets = body.statement.scope.find("names", o[1])
    if not isinstance(targets, list):
        body.fail(f"branch targets {o[1]}")
    cases = " ".join(f"case {i}: goto {label(body, name)};" for i, name in enumerate(targets))
    return f"switch ({body.value(o[0], 'u32')}) {{ {cases} default: t.bad_branch({body.site()}); }}"


@handles("ret")
def ret(body, m, o):
    m.take("uni")
    return "return;"


@handles("exit")
def exit_thread(body, m, o):
    return "return;" if body.function.kind == "entry" else "t.exit_thread();"


@handles("trap")
def trap(body, m, o):
    return f"t.trap({body.site()});"


@handles("call")
def call(body, m, o):
    m.take("uni")
    if o[0].startswith("("):
        results, o = split_operands(o[0][1:-1]), o[1:]
    else:
        results = []
    name = o[0]
    arguments = split_operands(o[1][1:-1]) if len(o) > 1 else []
    pointers = [body.bytes_of(body.symbol(a)) for a in results + arguments if isinstance(body.symbol(a), Variable)]
    if len(pointers) != len(results) + len(arguments) or len(o) > 2:
        body.fail(f"call of {name}: only calls by name with parameters in memory are known")
    if name == "__assertfail":
        return f"t.assertion_failed({', '.join(pointers[:4])}, {body.site()});"
    callee = body.translator.by_name.get(name)
    if callee is None:
        body.fail(f"call of {name}, which this file does not define")
    body.function.calls.add(name)
    return f"{body.translator.function_name(callee)}({', '.join(['t'] + pointers)});"


@handles("nanosleep", "membar", "fence")
def fence(body, m, o):
    """Threads take turns, so that every fence holds; a missing one goes unnoticed."""
    m.drop({"cta", "gl", "gpu", "sys", "sc", "acq_rel", "u32"})
    return ";"


# 9.7.13: what several threads do together


@handles("bar", "barrier")
def barrier(body, m, o):
    m.drop({"cta", "aligned"})
    if base(m) == "bar" and m.take("warp"):
        m.need("sync")
        return f"t.warp_barrier({body.value(o[0], 'b32')}, {body.site()});"
    if m.take("sync"):
        if len(o) != 1 or o[0] not in ("0",):
            body.fail(f"{m.opcode} {', '.join(o)}: only barrier 0 with all threads of the block is known")
        return f"t.barrier({body.site()});"
    m.need("red")
    name = m.need("popc", "and", "or")
    kind = m.type({"u32", "pred"})
    if len(o) != 3 or o[1] != "0":
        body.fail(f"{m.opcode} {', '.join(o)}: only barrier 0 with all threads of the block is known")
    return body.assign(o[0], kind, f"t.barrier_{name}({body.value(o[2], 'pred')}, {body.site()})")


@handles("shfl")
def shuffle(body, m, o):
    m.need("sync")
    m.type({"b32"})
    mode = m.need("up", "down", "bfly", "idx")
    value, lane, clamp, mask = operands_as(body, o[1:5], "b32")
    targets = [t.strip() for t in o[0].split("|")]
    call_text = f"t.shuffle(Shuffle::{mode}, {value}, {lane}, {clamp}, {mask}, {body.site()})"
    if len(targets) == 1:
        return body.assign(targets[0], "b32", f"{call_text}.value")
    return (f"{{ const auto s = {call_text}; {body.assign(targets[0], 'b32', 's.value')} "
            f"{body.assign(targets[1], 'pred', 's.in_range')} }}")


@handles("vote")
def vote(body, m, o):
    m.need("sync")
    name = m.need("all", "any", "uni", "ballot")
    kind = m.type({"pred", "b32"})
    return body.assign(o[0], kind, f"t.vote_{name}({body.value(o[1], 'pred')}, {body.value(o[2], 'b32')}, {body.site()})")


@handles("activemask")
def activemask(body, m, o):
    m.type({"b32"})
    return body.assign(o[0], "b32", "t.active_mask()")


@handles("match")
def match_lanes(body, m, o):
    name = m.need("any", "all")
    m.need("sync")
    kind = m.type({"b32", "b64"})
    value, mask = body.value(o[1], kind), body.value(o[2], "b32")
    targets = [t.strip() for t in o[0].split("|")]
    call_text = f"t.match_{name}({value}, {mask}, {body.site()})"
    if len(targets) == 1:
        return body.assign(targets[0], "b32", call_text)
    return f"{{ const U32 same = {call_text}; {body.assign(targets[0], 'b32', 'same')} {body.assign(targets[1], 'pred', 'same != 0')} }}"


@handles("redux")
def redux(body, m, o):
    m.need("sync")
    name = m.need("add", "min", "max", "and", "or", "xor")
    kind = m.type({"u32", "s32"} if name in ("add", "min", "max") else {"b32"})
    return body.assign(o[0], kind, f"t.reduce_{name}<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], 'b32')}, {body.site()})")


@handles("cp")
def copy_async(body, m, o):
    m.need("async")
    if m.take("commit_group"):
        return "t.copy_commit();"
    if m.take("wait_all"):
        return f"t.copy_wait_all({body.site()});"
    if m.take("wait_group"):
        return f"t.copy_wait({int(o[0], 0)}, {body.site()});"
    if not m.take("ca") and not m.take("cg"):
        body.fail(f"{m.opcode} is not known")
    m.need("shared", "shared::cta")
    m.need("global")
    m.drop({"L2::64B", "L2::128B", "L2::256B"})
    size = int(o[2], 0)
    if size not in (4, 8, 16) or len(o) > 4 or (".cg" in m.opcode and size != 16):
        body.fail(f"{m.opcode} {', '.join(o)}")
    if len(o) == 4 and (register := body.register(o[3].lstrip("!"))) is not None and register.kind == "pred":
        source = f"({body.value(o[3], 'pred')} ? 0u : {size}u)"
    else:
        source = body.value(o[3], "u32") if len(o) == 4 else f"{size}u"
    return f"t.copy_async({body.address(o[0], 'shared')}, {body.address(o[1], 'global')}, {size}, {source}, {body.site()});"


@handles("ldmatrix")
def ldmatrix(body, m, o):
    m.type({"b16"})
    m.need("sync")
    m.need("aligned")
    m.need("m8n8")
    count = {"x1": 1, "x2": 2, "x4": 4}[m.need("x1", "x2", "x4")]
    transposed = "true" if m.take("trans") else "false"
    space = (m.take("shared", "shared::cta") or "generic").split("::")[0]
    targets = body.vector(o[0])
    if space != "shared" or len(targets) != count:
        body.fail(m.opcode)
    writes = " ".join(body.assign(r, "b32", f"m[{i}]") for i, r in enumerate(targets))
    return f"{{ const auto m = t.load_matrix<{count}, {transposed}>({body.address(o[1], 'shared')}, {body.site()}); {writes} }}"


MATRIX_PRODUCTS = {"m16n8k16.row.col.f32.bf16.bf16.f32": ("bf16", 4, 2), "m16n8k8.row.col.f32.tf32.tf32.f32": ("tf32", 4, 2)}


@handles("mma")
def mma(body, m, o):
    m.need("sync")
    m.need("aligned")
    shape = ".".join(m.words)
    if shape not in MATRIX_PRODUCTS:
        body.fail(f"{m.opcode}: this shape and these types are not known")
    m.words.clear()
    name, a_count, b_count = MATRIX_PRODUCTS[shape]
    d, a, b, c = (body.vector(v) for v in o)
    if [len(d), len(a), len(b), len(c)] != [4, a_count, b_count, 4]:
        body.fail(f"operands of {m.opcode}")
    fragment = lambda parts, kind: "{" + ", ".join(operands_as(body, parts, kind)) + "}"
    writes = " ".join(body.assign(r, "f32", f"m[{i}]") for i, r in enumerate(d))
    return (f"{{ const auto m = t.multiply_{name}({fragment(a, 'b32')}, {fragment(b, 'b32')}, {fragment(c, 'f32')}, "
            f"{body.site()}); {writes} }}")


# ---- Writing -------------------------------------------------------------------------------------


class Translator:
    def __init__(self, module, source_name, forbid_approximate):
        self.module, self.source_name, self.forbid_approximate = module, source_name, forbid_approximate
        self.by_name = {f.name: f for f in module.functions}
        self.sites, self.blocks, self.opcodes = [], [], {}
        self.contractible, self.approximations, self.volatile, self.statements = [], 0, 0, 0
        self.place_shared()

    # Shared memory: variables of the module and of device functions lie at the same place for every
    # kernel, an entry's own behind them (or at 0, if it reaches none of those).

    def place_shared(self):
        end = 0
        common = [v for v in self.module.variables.values() if v.space == "shared" and not v.extern]
        for function in self.module.functions:
            if function.kind == "func":
                common += [v for v in function.variables if v.space == "shared"]
        for variable in common:
            variable.offset = align_up(end, variable.alignment)
            end = variable.offset + variable.size
        self.common_names, self.common_end = {v.name for v in common}, end
        for function in self.module.functions:
            if function.kind == "entry":
                at = end if self.reaches_common(function, set()) else 0
                for variable in function.variables:
                    if variable.space == "shared":
                        variable.offset = align_up(at, variable.alignment)
                        at = variable.offset + variable.size
                function.static_shared = at

    def reaches_common(self, function, seen):
        if function is None or function.name in seen:
            return False
        seen.add(function.name)
        text = " ".join(s.text for s in function.statements)
        words = set(re.findall(r"[\w$]+", text))
        if function.kind == "func" and any(v.space == "shared" for v in function.variables):
            return True
        if words & {n for n in self.common_names if n in self.module.variables}:
            return True
        return any(self.reaches_common(self.by_name[w], seen) for w in words & self.by_name.keys())

    def shared_offset(self, variable):
        return variable.offset

    def check_dynamic(self, variable):
        if variable.alignment > 16:
            raise PtxError(0, f"{variable.name} is aligned to {variable.alignment} bytes: dynamic shared memory is to 16")

    def global_name(self, variable):
        return "data_" + re.sub(r"\W", "_", variable.name)

    def function_name(self, function):
        return f"{function.kind}_{self.module.functions.index(function)}"

    TOOLKIT = re.compile(r"/targets/[^/]+/include/|/cuda[^/]*/include/|/include/crt/")

    def source_of(self, places):
        """C++ of the file and line: the innermost place that is not inlined from the toolkit's headers."""
        if not places:
            return "nullptr, 0"
        own = [p for p in places if not self.TOOLKIT.search(self.module.files.get(p[0], ""))] or places
        return f"{c_string(self.module.files.get(own[0][0], ''))}, {own[0][1]}"

    def add_site(self, function, statement, opcode):
        self.sites.append((function.name, opcode, statement.line, statement.source))
        return f"&sites[{len(self.sites) - 1}]"

    def add_block(self):
        self.blocks.append([])
        return f"executed[{len(self.blocks) - 1}]"

    def count(self, opcode):
        self.statements += 1
        self.blocks[-1].append(self.opcodes.setdefault(opcode, len(self.opcodes)))

    def place_parameters(self, function):
        offset = 0
        for parameter in function.parameters:
            parameter.offset = align_up(offset, parameter.alignment)
            offset = parameter.offset + parameter.size
        function.parameter_bytes = offset

    def signature(self, function):
        if function.kind == "entry":
            return f"void {self.function_name(function)}(Thread& t)"
        names = [f"std::byte* {re.sub(r'[^A-Za-z0-9_]', '_', v.name)}_p" for v in function.results + function.parameters]
        return f"void {self.function_name(function)}({', '.join(['Thread& t'] + names)})"

    def body_text(self, function):
        body = Body(self, function)
        body.translate()
        text = [f"// {function.name}", self.signature(function) + " {"]
        for register in body.used.values():
            text.append(f"  {register.type} {register.name}{{}};")
        if body.carry:
            text.append("  bool carry = false, unused_carry = false;")
        for variable in function.variables:
            if variable.space == "param":
                text.append(f"  alignas(16) std::byte {body.bytes_of(variable)}[{max(variable.size, 1)}];")
            elif variable.space == "local":
                name = body.bytes_of(variable)
                text.append(f"  alignas({variable.alignment}) std::byte {name}[{max(variable.size, 1)}];")
                text.append(f"  const LocalMemory memory_{name}(t, {name}, sizeof {name});")
            elif variable.space != "shared":
                raise PtxError(function.line, f".{variable.space} variable {variable.name} inside {function.name}")
        text += body.lines
        return text + ["}", ""]

    def data_text(self, variable):
        if variable.space not in ("global", "const"):
            return []
        if variable.extern:
            raise PtxError(0, f"the variable {variable.name} is defined elsewhere")
        name, element = self.global_name(variable), width(variable.element)
        values = variable.values or []
        out = []
        for value in values:
            if not re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?|0[fFdD][0-9a-fA-F]+", value):
                raise PtxError(0, f"initial value {value} of {variable.name}")
            number = int(value[2:], 16) if value[:2].lower() in ("0f", "0d") else int(value.rstrip("U"), 0)
            out += list((number & ((1 << 8 * element) - 1)).to_bytes(element, "little"))
        out += [0] * (variable.size - len(out))
        listed = ", ".join(f"std::byte{{{b}}}" for b in out)
        return [f"alignas({max(variable.alignment, 1)}) std::byte {name}[] = {{{listed}}};"]

    def write(self, fatbin_hash):
        for function in self.module.functions:
            self.place_parameters(function)
        bodies = [line for function in self.module.functions for line in self.body_text(function)]
        text = ["// Made by ptx_translate.py from " + self.source_name + ": do not edit.",
                "#include <emulator/ptx_module.hpp>", "#include <emulator/ptx_thread.hpp>", "",
                "// nvcc computes what nobody reads, too.",
                '#pragma GCC diagnostic ignored "-Wunused-but-set-variable"',
                '#pragma GCC diagnostic ignored "-Wunused-variable"',
                '#pragma GCC diagnostic ignored "-Wunused-parameter"',
                '#pragma GCC diagnostic ignored "-Wunused-label"',
                '#pragma GCC diagnostic ignored "-Wunused-function"', "", "namespace {", "using namespace plumb::emulator::ptx;", ""]
        for variable in self.module.variables.values():
            if variable.space == "shared" and variable.extern:
                self.check_dynamic(variable)
            text += self.data_text(variable)
        text += [f"extern Site sites[{max(len(self.sites), 1)}];", f"std::uint64_t executed[{max(len(self.blocks), 1)}];", "extern Module module;", ""]
        text += [self.signature(f) + ";" for f in self.module.functions] + [""]
        text += bodies + self.tables_text(fatbin_hash) + ["}  // namespace", ""]
        return "\n".join(text)

    def tables_text(self, fatbin_hash):
        text = [f"Site sites[{max(len(self.sites), 1)}] = {{"]
        for name, opcode, line, source in self.sites:
            text.append(f"  {{{c_string(name)}, {c_string(opcode)}, {line}, {self.source_of(source)}}},")
        text += ["};", ""]
        listed = [f"{c_string(o)}" for o in self.opcodes] or ['""']
        text.append(f"const char* const opcodes[] = {{{', '.join(listed)}}};")
        flat, starts = [], [0]
        for block in self.blocks:
            flat += block
            starts.append(len(flat))
        text.append(f"const std::uint16_t block_opcodes[] = {{{', '.join(map(str, flat or [0]))}}};")
        text.append(f"const std::uint32_t block_starts[] = {{{', '.join(map(str, starts))}}};")
        data = [v for v in self.module.variables.values() if v.space in ("global", "const")]
        spans = [f"{{{self.global_name(v)}, {v.size}, {'true' if v.space == 'const' else 'false'}}}" for v in data]
        text.append(f"const Data data[] = {{{', '.join(spans) or '{nullptr, 0, false}'}}};")
        entries = [f for f in self.module.functions if f.kind == "entry"]
        for function in entries:
            listed = ", ".join(f"{{{p.offset}, {p.size}}}" for p in function.parameters) or "{0, 0}"
            text.append(f"const Parameter parameters_{self.function_name(function)}[] = {{{listed}}};")
            text.append(f"void run_{self.function_name(function)}(const void* p) {{ run_thread({self.function_name(function)}, p, module); }}")
        text.append("const Entry entries[] = {")
        for function in entries:
            name = self.function_name(function)
            text.append(f"  {{{c_string(function.name)}, run_{name}, parameters_{name}, {len(function.parameters)}, "
                        f"{function.parameter_bytes}, {function.static_shared}, {function.max_threads}}},")
        if not entries:
            text.append("  {},")
        text += ["};", "Module module{",
                 f"    {c_string(self.module.target)}, {c_string(self.source_name)}, 0x{fatbin_hash:016x}ull,",
                 f"    entries, {len(entries)}, sites, {len(self.sites)}, data, {len(data)},",
                 f"    executed, block_starts, block_opcodes, {len(self.blocks)}, opcodes, {len(self.opcodes)}}};",
                 "const Registration registration(module);"]
        return text


def fnv1a(data):
    """The hash of ptx_module.hpp over the 8-byte words of the fatbin."""
    value = 0xcbf29ce484222325
    for at in range(0, len(data), 8):
        value = ((value ^ int.from_bytes(data[at:at + 8], "little")) * 0x100000001b3) & 0xffffffffffffffff
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ptx")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--fatbin", help="the fatbin that holds this PTX: ties the translation to the object")
    parser.add_argument("--forbid-approximate", action="store_true", help="ex2.approx and its like are errors")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    try:
        with open(options.ptx, encoding="utf-8") as file:
            module = Reader(file.read()).read()
        translator = Translator(module, options.ptx.rsplit("/", 1)[-1], options.forbid_approximate)
        fatbin_hash = 0
        if options.fatbin:
            with open(options.fatbin, "rb") as file:
                fatbin_hash = fnv1a(file.read())
        text = translator.write(fatbin_hash)
    except PtxError as error:
        print(f"{options.ptx}:{error.line}: error: {error}", file=sys.stderr)
        return 1
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(text)
    for line in translator.contractible[:5]:
        print(f"{options.ptx}:{line}: warning: an f32 or f64 sum or product without a rounding mode, which ptxas "
              "may contract to an fma (compile with -fmad=false)", file=sys.stderr)
    if not options.quiet:
        print(f"{options.ptx}: {len(module.functions)} functions, {translator.statements} statements, "
              f"{len(translator.opcodes)} opcodes, {len(translator.contractible)} contractible, "
              f"{translator.approximations} approximate, {translator.volatile} volatile")
    return 0


if __name__ == "__main__":
    sys.exit(main())
