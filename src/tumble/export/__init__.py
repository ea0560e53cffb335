"""What a library holds, in the formats of other programs. Views of what is stored: nothing is computed anew."""

from tumble.export.write import FORMATS, export_library

__all__ = ["FORMATS", "export_library"]
