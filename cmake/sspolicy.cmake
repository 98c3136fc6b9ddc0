# Compiles policies while a program is built. In CMakeLists.txt:
#
#   include(path/to/sspolicy.cmake)
#   add_executable(app main.c)
#   sspolicy_compile(app POLICY policy.json LWS 4.3)
#
# The target gets the tables of policy.json, and #include "policy.h" in its
# sources declares them. More arguments:
#
#   OVERLAY FRAGMENT...  lay these over the policy first
#   NAME NAME            call the files NAME.c and NAME.h; by default, like the policy
#   PREFIX PREFIX        what the symbols begin with, _ss_ by default
#   ENTRY NAME           what the first table is called, PREFIXstatic_policy_entry by
#                        default
#
# sspolicy is looked for in PATH, unless SSPOLICY_EXECUTABLE says where it is.

cmake_minimum_required(VERSION 3.13)

function(sspolicy_compile target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "POLICY;LWS;NAME;PREFIX;ENTRY" "OVERLAY")
  if(NOT arg_POLICY)
    message(FATAL_ERROR "sspolicy_compile: POLICY is missing")
  endif()
  if(NOT arg_LWS)
    message(FATAL_ERROR "sspolicy_compile: LWS is missing: the version of libwebsockets, such as 4.3")
  endif()
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "sspolicy_compile: what is ${arg_UNPARSED_ARGUMENTS}?")
  endif()
  find_program(SSPOLICY_EXECUTABLE sspolicy)
  if(NOT SSPOLICY_EXECUTABLE)
    message(FATAL_ERROR "sspolicy_compile: sspolicy is not in PATH: set SSPOLICY_EXECUTABLE")
  endif()

  if(NOT arg_NAME)
    get_filename_component(arg_NAME "${arg_POLICY}" NAME_WE)
  endif()
  set(dir "${CMAKE_CURRENT_BINARY_DIR}/sspolicy/${target}")
  file(MAKE_DIRECTORY "${dir}")
  set(c "${dir}/${arg_NAME}.c")
  set(h "${dir}/${arg_NAME}.h")

  get_filename_component(policy "${arg_POLICY}" ABSOLUTE)
  set(sources "${policy}")
  set(args --lang c --lws "${arg_LWS}" --output "${c}" --header "${h}")
  foreach(fragment IN LISTS arg_OVERLAY)
    get_filename_component(fragment "${fragment}" ABSOLUTE)
    list(APPEND sources "${fragment}")
    list(APPEND args --overlay "${fragment}")
  endforeach()
  if(arg_PREFIX)
    list(APPEND args --prefix "${arg_PREFIX}")
  endif()
  if(arg_ENTRY)
    list(APPEND args --entry "${arg_ENTRY}")
  endif()

  add_custom_command(
    OUTPUT "${c}" "${h}"
    COMMAND "${SSPOLICY_EXECUTABLE}" compile ${args} "${policy}"
    DEPENDS ${sources} "${SSPOLICY_EXECUTABLE}"
    COMMENT "Compiling ${arg_POLICY} for libwebsockets ${arg_LWS}"
    VERBATIM)
  target_sources("${target}" PRIVATE "${c}" "${h}")
  target_include_directories("${target}" PRIVATE "${dir}")
endfunction()
