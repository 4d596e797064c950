# Writes OUT, a C++ source with the contents of FILES: studio_files() of app/studio/server.hpp. The
# page is small, and stays so.
set(largest 150000)  # bytes in all
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")
set(files "")
set(total 0)
foreach(path IN LISTS FILES)
  file(READ "${path}" content)
  file(SIZE "${path}" size)
  math(EXPR total "${total} + ${size}")
  get_filename_component(name "${path}" NAME)
  get_filename_component(extension "${path}" LAST_EXT)
  string(REPLACE "." "" extension "${extension}")
  string(FIND "${content}" ")plumb_page" end)
  if(NOT end EQUAL -1)
    message(FATAL_ERROR "${path} has the mark at which its text would end: )plumb_page")
  endif()
  string(APPEND files
    "      {\"${name}\", \"${type_${extension}}\", R\"plumb_page(${content})plumb_page\"},\n")
endforeach()
if(total GREATER largest)
  message(FATAL_ERROR "The page has ${total} bytes, and may have ${largest}")
endif()
file(WRITE "${OUT}" "#include \"server.hpp\"

namespace plumb { inline namespace v0_1 {

std::span<const StudioFile> studio_files() {
  static constexpr StudioFile files[] = {
${files}  };
  return files;
}

}}  // namespace plumb::v0_1
")
