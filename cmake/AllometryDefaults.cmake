# Language, warnings, linker and output folder of every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

find_program(ALLOMETRY_CCACHE ccache)
if(ALLOMETRY_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Precompiled headers and ccache agree only with these settings.
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    ${ALLOMETRY_CCACHE})
endif()
find_program(ALLOMETRY_MOLD mold)
if(ALLOMETRY_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

include_directories(${CMAKE_SOURCE_DIR})
# restrict: g++ 12 reports it falsely for std::string concatenation.
add_compile_options(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-restrict)
if(ALLOMETRY_WERROR)
  add_compile_options(-Werror)
endif()
if(ALLOMETRY_SANITIZE)
  add_compile_options(-fsanitize=${ALLOMETRY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ALLOMETRY_SANITIZE})
  if(ALLOMETRY_SANITIZE MATCHES "undefined")
    # A check at every access: twice the compiler's time, for what the address sanitizer and the processor find as well.
    add_compile_options(-fno-sanitize=null,alignment,object-size,vptr)
  endif()
  if(ALLOMETRY_SANITIZE MATCHES "thread")
    # Protobuf's headers give map fields two members more when they see this macro, and the library was built without it.
    # The standard library's headers need it, under the name that they give it.
    add_compile_options(-U__SANITIZE_THREAD__ -D_GLIBCXX_TSAN=1 -DALLOMETRY_THREAD_SANITIZER)
  endif()
endif()

# Sanitized, what computes for long is optimised and the rest is not: with checks, the compiler's optimiser takes most of the time.
function(allometry_optimise_sanitized target)
  if(ALLOMETRY_SANITIZE)
    target_compile_options(${target} PRIVATE -O1)
  endif()
endfunction()

find_package(Threads REQUIRED)
find_package(nlohmann_json REQUIRED)
if(ALLOMETRY_BUILD_DAEMONS)
  find_package(spdlog REQUIRED)
endif()
find_package(OpenSSL REQUIRED)

# The commit goes into every attempt's provenance.
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --short=12 HEAD
  OUTPUT_VARIABLE ALLOMETRY_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT ALLOMETRY_COMMIT)
  set(ALLOMETRY_COMMIT unknown)
endif()
# Configures anew after each commit or checkout: a build tree that lives on must not go on naming an old commit.
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --git-path logs/HEAD
  OUTPUT_VARIABLE git_log OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
get_filename_component(git_log "${git_log}" ABSOLUTE BASE_DIR ${CMAKE_SOURCE_DIR})
if(git_log AND EXISTS ${git_log} AND NOT IS_DIRECTORY ${git_log})
  set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${git_log})
endif()

add_custom_target(daemon_tests)
add_custom_target(threaded_tests)

# allometry_test(name SOURCES... LIBS... LABELS... [PLAIN]): one GoogleTest program, its cases found by CTest.
# PLAIN: left out of the sanitizers' builds, as all tests of the trainer are.
function(allometry_test name)
  cmake_parse_arguments(arg "PLAIN" "" "SOURCES;LIBS;LABELS;DEFINITIONS" ${ARGN})
  if(arg_PLAIN OR arg_LIBS MATCHES "allometry_(engine|models|trainer_data|exchange)|golden_losses")
    if(ALLOMETRY_SANITIZE)
      return()
    endif()
  elseif(NOT ALLOMETRY_DAEMON_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  include(GoogleTest)
  add_executable(${name} ${arg_SOURCES})
  # Of a test's own code the compiler's time matters more than the processor's.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  target_link_libraries(${name} PRIVATE ${arg_LIBS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS}
    ALLOMETRY_SOURCE_DIR="${CMAKE_SOURCE_DIR}" ALLOMETRY_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  # What the sanitizers run: all of it under ASan and UBSan, what has threads under TSan (CMakePresets.json).
  add_dependencies(daemon_tests ${name})
  if("threaded" IN_LIST arg_LABELS)
    add_dependencies(threaded_tests ${name})
  endif()
  # One label, "unit.threaded", since gtest_discover_tests loses all but the first; ctest -L takes any part of it.
  string(JOIN "." label ${arg_LABELS})
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES LABELS ${label})
endfunction()
