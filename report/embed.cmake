# Writes OUTPUT: each of the files of ASSETS, "constant=path", as a constant of report/assets.h.
set(text "#include \"report/assets.h\"\n\nnamespace allometry::report {\n\n")
foreach(asset IN LISTS ASSETS)
  string(REGEX MATCH "^([^=]+)=(.*)$" matched "${asset}")
  file(READ "${CMAKE_MATCH_2}" content)
  string(APPEND text "const char* const ${CMAKE_MATCH_1} = R\"ASSET(" "${content}" ")ASSET\";\n\n")
endforeach()
string(APPEND text "}  // namespace allometry::report\n")
file(WRITE "${OUTPUT}" "${text}")
