#pragma once

// Files of this folder that the program carries, as text.
namespace allometry::report {

extern const char* const kRenderFigures;  // render_figures.py
extern const char* const kPageStyle;      // page.css
extern const char* const kPageScript;     // page.js

}  // namespace allometry::report
