# Code compiled for one instruction set must not be shared between object files (weak symbols):
# the linker could keep the copy which an older CPU cannot run.
execute_process(COMMAND ${NM} -C ${LIBRARY} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" lines "${symbols}")
foreach(line ${lines})
  if(line MATCHES "\\.o:$")
    set(object ${line})
  elseif(object MATCHES "_avx" AND line MATCHES " W ")
    message(SEND_ERROR "${object} shares ${line}")
  endif()
endforeach()
