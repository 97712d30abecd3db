# Writes OUTPUT: kMigrations of sql/migrations.h, the text of each file of MIGRATIONS in the order of their numbers.
list(SORT MIGRATIONS)
set(text "#include \"sql/migrations.h\"\n\nnamespace allometry::sql {\n\nconst std::vector<const char*> kMigrations = {\n")
foreach(migration IN LISTS MIGRATIONS)
  file(READ "${migration}" content)
  string(APPEND text "R\"SQL(" "${content}" ")SQL\",\n")
endforeach()
string(APPEND text "};\n\n}  // namespace allometry::sql\n")
file(WRITE "${OUTPUT}" "${text}")
