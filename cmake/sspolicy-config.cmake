# find_package(sspolicy) reads this file.

include("${CMAKE_CURRENT_LIST_DIR}/sspolicy.cmake")
if(NOT SSPOLICY_EXECUTABLE)
  set(sspolicy_FOUND FALSE)
  set(sspolicy_NOT_FOUND_MESSAGE "sspolicy is not in PATH: set SSPOLICY_EXECUTABLE")
endif()
