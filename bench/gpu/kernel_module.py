"""liballometry-kernels.so from Python: its C structs are read off the headers, so that no layout is written down twice.

    kernels = Module("build/trainer/liballometry-kernels.so")
    kernels.norm_forward(stream, BFLOAT16, kernels.struct("NormForwardArgs", x=x, weight=w, y=y, scale=s, rows=r, d=d))
"""
import ctypes
import pathlib
import re

HEADERS = pathlib.Path(__file__).resolve().parents[2] / "worker/trainer/kernels"
FLOAT32, BFLOAT16 = 0, 1
SCALARS = {"int": ctypes.c_int, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64, "float": ctypes.c_float,
           "uint64_t": ctypes.c_uint64, "double": ctypes.c_double, "bool": ctypes.c_bool, "size_t": ctypes.c_size_t,
           "uint8_t": ctypes.c_uint8, "DataType": ctypes.c_int}
MEMBER = re.compile(r"(?:const )?(\w+)(?:<[^<>]*>)?(\s*\*\s*|\s+)([\w\s=.,:*\-+]+)$")
FUNCTION = re.compile(r"([\w ]+\*?)\s*\(\*(\w+)\)\(([^)]*)\) = nullptr;")


class Unreadable(Exception):
    """The headers say something that is not understood here."""


def without_comments(text):
    return re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))


def bodies(text):
    """(name, body) of every struct."""
    for match in re.finditer(r"\bstruct (\w+) \{", text):
        depth, at = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield match[1], text[match.end():at - 1]


def enums(text):
    for name, values in re.findall(r"\benum class (\w+)(?: : \w+)? \{([^}]*)\}", text):
        yield name, {value.split("=")[0].strip(): place for place, value in enumerate(values.split(",")) if value.strip()}


class Headers:
    def __init__(self, folder=HEADERS):
        self.text, self.enums, self.structs, self.defaults, self.functions = {}, {}, {}, {}, []
        paths = sorted(folder.glob("*.h"))
        if not (folder / "kernel_table.h").exists():
            raise Unreadable(f"there is no kernel_table.h in {folder}")
        for path in [*paths, folder.parent / "layers/kernels.h"]:
            text = without_comments(path.read_text())
            self.enums.update(enums(text))
            self.text.update(bodies(text))
        self.functions = FUNCTION.findall(self.text["KernelTable"])

    def members(self, name):
        """(name, type, default) of a struct's members; functions are none."""
        for line in self.text[name].split(";"):
            line = " ".join(line.split())
            if not line or "(" in line or "{" in line or "static" in line:
                continue
            match = MEMBER.match(line)
            if not match:
                raise Unreadable(f"{name}: '{line}'")
            for declared in match[3].split(","):
                member, _, default = (part.strip() for part in declared.partition("="))
                pointer = "*" in match[2] or member.startswith("*")
                yield member.lstrip("* "), ctypes.c_void_p if pointer else self.type_of(match[1]), default

    def type_of(self, name):
        if name == "Stream":
            return ctypes.c_void_p
        if name in self.enums and name != "DataType":
            return ctypes.c_int
        if name in SCALARS:
            return SCALARS[name]
        return self.struct(name)

    def value_of(self, default):
        if "::" in default:
            enum, _, value = default.rpartition("::")
            return self.enums[enum.split("::")[-1]][value]
        return {"nullptr": None, "true": True, "false": False}.get(default, float(default.rstrip("f")) if default[:1] in "-.0123456789" else None)

    def struct(self, name):
        if name not in self.structs:
            if name not in self.text:
                raise Unreadable(f"the type {name} is in no header")
            members = list(self.members(name))
            self.structs[name] = type(name, (ctypes.Structure,), {"_fields_": [(member, kind) for member, kind, _ in members]})
            self.defaults[name] = {member: (kind, self.value_of(default)) for member, kind, default in members if default}
        return self.structs[name]


class Module:
    def __init__(self, path, folder=HEADERS):
        self.headers = Headers(folder)
        self.library = ctypes.CDLL(str(path))
        self.library.AllometryKernels.restype = ctypes.c_void_p
        fields = [("version", ctypes.c_int), ("bytes", ctypes.c_size_t)]
        table_type = type("KernelTable", (ctypes.Structure,), {"_fields_": fields + [(f[1], ctypes.c_void_p) for f in self.headers.functions]})
        table = table_type.from_address(self.library.AllometryKernels())
        if table.bytes != ctypes.sizeof(table_type):
            raise Unreadable(f"{path} has a table of {table.bytes} bytes, and these headers one of {ctypes.sizeof(table_type)}: "
                             "build it from this tree")
        self.names = []
        for result, name, arguments in self.headers.functions:
            address = getattr(table, name)
            types = [self.argument_type(a) for a in arguments.split(",") if a.strip()]
            kind = ctypes.c_char_p if result.replace(" ", "") == "constchar*" else None if result.strip() == "void" else ctypes.c_void_p
            if address:
                setattr(self, name, ctypes.CFUNCTYPE(kind, *types)(address))
                if "Stream" in arguments:
                    self.names.append(name)

    def argument_type(self, declared):
        words = declared.replace("const ", "").split()
        if "&" in declared:
            return ctypes.POINTER(self.headers.struct(words[0].rstrip("&")))
        return ctypes.c_void_p if "*" in declared else self.headers.type_of(words[0])

    def struct(self, struct_name, /, **values):
        """A struct with its defaults; tensors stand for their memory, dictionaries for structs inside it."""
        kind = self.headers.struct(struct_name)
        made = kind()
        given = {**{k: v for k, (_, v) in self.headers.defaults[struct_name].items() if v is not None}, **values}
        types = dict(kind._fields_)
        for name, value in given.items():
            if name not in types:
                raise Unreadable(f"{struct_name} has no {name}")
            setattr(made, name, self.value(types[name], value))
        return made

    def value(self, kind, value):
        if isinstance(value, dict):
            return self.struct(kind.__name__, **value)
        if hasattr(value, "data_ptr"):
            return value.data_ptr()
        if isinstance(value, (ctypes.Structure, bool)) or value is None:
            return value
        if kind in (ctypes.c_float, ctypes.c_double):
            return float(value)
        return int(value)

    def enum(self, name, value):
        return self.headers.enums[name][value]
