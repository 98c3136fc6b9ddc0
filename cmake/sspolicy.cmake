# Compiles policies as part of a build. In CMakeLists.txt:
#
#   find_package(libwebsockets REQUIRED)
#   find_package(sspolicy REQUIRED)    # or include(path/to/sspolicy.cmake)
#   add_executable(app main.c)
#   sspolicy_compile(app POLICY policy.json)
#
# The target gets the tables of policy.json, and its sources can include policy.h,
# which declares them. Other arguments:
#
#   LWS VERSION          the version of libwebsockets, such as 4.3; the default is the
#                        version that find_package(libwebsockets) found
#   OVERLAY FRAGMENT...  apply these fragments to the policy
#   NAME NAME            write NAME.c and NAME.h; the default is the name of the policy
#   PREFIX PREFIX        begin the symbols with PREFIX instead of _ss_
#   ENTRY NAME           name the first table NAME instead of PREFIXstatic_policy_entry
#   PUBLIC               let targets that link this one include the header too
#
# The default program is the sspolicy installed with this file, otherwise the one in PATH.
# SSPOLICY_EXECUTABLE selects another one.

if(CMAKE_VERSION VERSION_LESS 3.13)
  message(FATAL_ERROR "sspolicy needs CMake 3.13 or later, not ${CMAKE_VERSION}")
endif()
cmake_policy(PUSH) # for the functions below, not for the caller
cmake_policy(VERSION 3.13...3.25)

# sspolicy runs on the build machine, even in a cross build.
find_program(SSPOLICY_EXECUTABLE sspolicy HINTS "${CMAKE_CURRENT_LIST_DIR}/../../../bin"
  NO_CMAKE_FIND_ROOT_PATH DOC "The program sspolicy")

function(sspolicy_compile target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "PUBLIC" "POLICY;LWS;NAME;PREFIX;ENTRY" "OVERLAY")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "sspolicy_compile: unknown argument: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_POLICY)
    message(FATAL_ERROR "sspolicy_compile: POLICY is missing")
  endif()
  if(NOT arg_LWS)
    foreach(version IN ITEMS "${libwebsockets_VERSION}" "${Libwebsockets_VERSION}")
      if(version MATCHES "^[0-9]+\\.[0-9]+")
        set(arg_LWS "${CMAKE_MATCH_0}")
        break()
      endif()
    endforeach()
  endif()
  if(NOT arg_LWS)
    message(FATAL_ERROR "sspolicy_compile: the version of libwebsockets is missing: call find_package(libwebsockets) first, or add LWS with a version such as 4.3")
  endif()
  if(NOT SSPOLICY_EXECUTABLE)
    message(FATAL_ERROR "sspolicy_compile: sspolicy is not in PATH: set SSPOLICY_EXECUTABLE")
  endif()
  if(NOT TARGET "${target}")
    message(FATAL_ERROR "sspolicy_compile: there is no target ${target}")
  endif()
  get_target_property(aliased "${target}" ALIASED_TARGET)
  if(aliased)
    set(target "${aliased}")
  endif()
  get_target_property(type "${target}" TYPE)
  if(NOT type MATCHES "^(EXECUTABLE|(STATIC|SHARED|MODULE|OBJECT)_LIBRARY)$")
    message(FATAL_ERROR "sspolicy_compile: ${target} is a target of type ${type}, which compiles no sources: give the tables to a library or program")
  endif()
  get_target_property(home "${target}" SOURCE_DIR)
  if(NOT home STREQUAL CMAKE_CURRENT_SOURCE_DIR)
    message(FATAL_ERROR "sspolicy_compile: ${target} is a target of ${home}: call sspolicy_compile there")
  endif()

  if(NOT arg_NAME)
    get_filename_component(arg_NAME "${arg_POLICY}" NAME_WE)
  endif()
  if(NOT arg_PREFIX)
    set(arg_PREFIX _ss_)
  endif()
  foreach(kind IN ITEMS NAME PREFIX)
    get_target_property(used "${target}" SSPOLICY_${kind}S)
    if("${arg_${kind}}" IN_LIST used)
      message(FATAL_ERROR "sspolicy_compile: ${target} already has a policy with the ${kind} ${arg_${kind}}: add ${kind} with another one")
    endif()
    set_property(TARGET "${target}" APPEND PROPERTY SSPOLICY_${kind}S "${arg_${kind}}")
  endforeach()
  set(dir "${CMAKE_CURRENT_BINARY_DIR}/sspolicy/${target}")
  file(MAKE_DIRECTORY "${dir}")
  set(c "${dir}/${arg_NAME}.c")
  set(h "${dir}/${arg_NAME}.h")

  get_filename_component(policy "${arg_POLICY}" ABSOLUTE)
  set(sources "${policy}")
  set(args --lang c --lws "${arg_LWS}" --prefix "${arg_PREFIX}" --output "${c}" --header "${h}")
  foreach(fragment IN LISTS arg_OVERLAY)
    get_filename_component(fragment "${fragment}" ABSOLUTE)
    list(APPEND sources "${fragment}")
    list(APPEND args --overlay "${fragment}")
  endforeach()
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
  if(arg_PUBLIC)
    target_include_directories("${target}" PUBLIC "$<BUILD_INTERFACE:${dir}>")
  else()
    target_include_directories("${target}" PRIVATE "${dir}")
  endif()
endfunction()

cmake_policy(POP)
