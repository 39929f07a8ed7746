"""Pyright's strict rules over the README's Python and a user's script: what mfresnet exports has complete types."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """The exit code of pyright."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    own = [block for block in blocks if "sklearn" not in block]  # later ones use names of earlier ones
    scripts = {"readme": "\n".join(own)}
    scripts |= {f"readme_sklearn_{index}": block for index, block in enumerate(blocks) if block not in own}
    scripts["user_script"] = (ROOT / "tests" / "typing" / "user_script.py").read_text(encoding="utf-8")
    rules = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src")], "reportMissingTypeStubs": False}
    with tempfile.TemporaryDirectory() as folder:
        for name, code in scripts.items():
            if "sklearn" in code:  # scikit-learn has no types
                code = f"# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false\n{code}"
            (Path(folder) / f"{name}.py").write_text(code, encoding="utf-8")
        (Path(folder) / "pyrightconfig.json").write_text(json.dumps(rules), encoding="utf-8")
        command = [Path(sys.executable).parent / "pyright", "--project", folder, "--pythonpath", sys.executable]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
